//! A full disk: writes are refused and that is told, reads and watches go on, and all comes back with the space.

use crate::Fallible;
use crate::arena::{PATIENCE, isolated, rounds};
use crate::load::{Load, Summary};
use crate::server::Server;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Takes the space that is left.
fn fill(file: &Path) -> Fallible {
    let mut file = File::create(file)?;
    for size in [1 << 20, 4096, 1] {
        while file.write(&vec![0; size]).is_ok() {}
    }
    Ok(())
}

/// Waits until a health check is, or is not, well; what it tells.
async fn until(server: &Server, path: &str, well: bool) -> Fallible<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (code, text) = server.ask(path).await?;
        if (code == 200) == well {
            return Ok(text);
        }
        if Instant::now() > deadline {
            return Err(format!("{path} still tells {code}: {text}\n{}", server.log()).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Fills a disk twice under load.
async fn fill_twice(directory: &Path) -> Fallible<Summary> {
    let (disk, log) = (directory.join("disk"), directory.join("log"));
    std::fs::create_dir(&disk)?;
    mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), Some("size=200m,mode=700"))?;
    let mut server = Server::new(&disk.join("d"), &log, 6443, &[]);
    server.up().await?;
    let mut load = Load::begin(&[&server], 6, 256 << 10).await?;
    let filler = disk.join("filler");
    for start_on_it in [false, true] {
        load.acknowledged(50).await?;
        fill(&filler)?;
        // What the log has space for is still taken.
        let told = until(&server, "/readyz", false).await?;
        assert!(told.contains("[-]etcd failed"), "{told}");
        let told = until(&server, "/readyz/etcd", false).await?;
        assert!(told.contains("cannot be written") && told.contains("No space left on device"), "{told}");
        assert_eq!(server.ask("/livez").await?.0, 200, "a restart would not help");
        let (code, _) = server.ask("/api/v1/namespaces/default/configmaps?limit=1").await?;
        assert_eq!(code, 200, "reads go on");
        if start_on_it {
            // A start on the full disk gets as far: it serves what is there.
            load.set_up(false);
            server.end(Signal::SIGKILL)?;
            load.shared.trace.settle();
            server.start()?;
            server.answers("/livez").await?;
            load.set_up(true);
            let (code, _) = server.ask("/api/v1/namespaces/default/configmaps?limit=1").await?;
            assert_eq!(code, 200, "reads go on");
        }
        std::fs::remove_file(&filler)?;
        until(&server, "/readyz", true).await?;
        load.acknowledged(50).await?;
        load.set_up(false);
        server.end(Signal::SIGKILL)?;
        load.shared.trace.settle();
        server.up().await?;
        load.set_up(true);
    }
    let summary = load.end(&server).await?;
    server.end(Signal::SIGTERM)?;
    umount2(&disk, MntFlags::empty())?;
    Ok(summary)
}

#[test]
fn a_full_disk_is_told_loses_nothing_and_passes() -> Fallible {
    isolated(async || {
        for _ in 0..rounds(1) {
            let directory = tempfile::tempdir()?;
            println!("full disk: twice, {}", fill_twice(directory.path()).await?);
        }
        Ok(())
    })
}

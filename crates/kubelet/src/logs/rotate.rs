//! Rotating containers' logs, so that no container fills the disk: the present log, the one
//! before as it was, older ones compressed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use crate::{config::ContainerLogs, kubelet::Shared, rpc};

const PERIOD: Duration = Duration::from_secs(10);

/// Looks at the sizes of the running containers' logs now and then.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for snapshot in shared.pods.all() {
            for container in snapshot.observed.running() {
                let path = Path::new(&container.log_path);
                let done = match due(path, shared.cfg.container_logs.max_size) {
                    Due::Nothing => Ok(()),
                    Due::Rotation => rotate(&shared, &container.id, path).await,
                    Due::Reopening => reopen(&shared, &container.id).await,
                };
                if let Err(error) = done {
                    tracing::warn!(container = container.id, %error, "a log could not be rotated");
                }
            }
        }
    }
}

/// What a running container's log needs.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Rotation,
    /// It has another name: a rotation broke off before the runtime began the new one.
    Reopening,
}

fn due(log: &Path, max_size: u64) -> Due {
    match fs::metadata(log) {
        Ok(metadata) if metadata.len() > max_size => Due::Rotation,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !log.as_os_str().is_empty() => Due::Reopening,
        _ => Due::Nothing,
    }
}

async fn reopen(shared: &Shared, container: &str) -> io::Result<()> {
    let request = cri::v1::ReopenContainerLogRequest { container_id: container.to_owned() };
    let answer = shared.cri.runtime().reopen_container_log(request).await;
    answer.map(drop).map_err(|status| io::Error::other(rpc::text(&status)))
}

async fn rotate(shared: &Shared, container: &str, log: &Path) -> io::Result<()> {
    let settings = shared.cfg.container_logs;
    let owned = log.to_owned();
    let blocking = move || prepare(&owned, &settings);
    tokio::task::spawn_blocking(blocking).await.map_err(io::Error::other)??;
    let rotated = with_suffix(log, &Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string());
    fs::rename(log, &rotated)?;
    if let Err(error) = reopen(shared, container).await {
        // The runtime still writes to the old file; give it its name back.
        fs::rename(&rotated, log)?;
        return Err(error);
    }
    Ok(())
}

fn with_suffix(log: &Path, suffix: &str) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// The rotated logs beside `log`, the oldest first.
fn rotated(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name()) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Makes room for one more: removes the oldest, compresses the rest but for what was just rotated.
fn prepare(log: &Path, settings: &ContainerLogs) -> io::Result<()> {
    let mut logs = rotated(log)?;
    // Left by a compression that broke off.
    for path in logs.extract_if(.., |path| path.extension().is_some_and(|ext| ext == "tmp")) {
        fs::remove_file(path)?;
    }
    // One place for the present log, one for what becomes rotated now.
    let keep = settings.max_files.saturating_sub(2);
    while logs.len() > keep {
        fs::remove_file(logs.remove(0))?;
    }
    for path in logs {
        if path.extension().is_none_or(|ext| ext != "gz") {
            compress(&path)?;
        }
    }
    Ok(())
}

fn compress(path: &Path) -> io::Result<()> {
    let (temporary, done) = (with_suffix(path, "tmp"), with_suffix(path, "gz"));
    let mut input = fs::File::open(path)?;
    let mut output = flate2::write::GzEncoder::new(fs::File::create(&temporary)?, flate2::Compression::default());
    io::copy(&mut input, &mut output)?;
    output.finish()?;
    fs::rename(temporary, done)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_log_without_its_name_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        fs::write(&log, "12345").unwrap();
        assert_eq!((due(&log, 5), due(&log, 4)), (Due::Nothing, Due::Rotation));
        fs::rename(&log, with_suffix(&log, "20240101-000000")).unwrap();
        assert_eq!(due(&log, 5), Due::Reopening);
        assert_eq!(due(Path::new(""), 5), Due::Nothing);
    }

    #[test]
    fn old_logs_are_compressed_and_the_oldest_removed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        fs::write(&log, "now").unwrap();
        fs::write(dir.path().join("1.log.20240101-000000"), "another container's").unwrap();
        for (suffix, text) in [
            ("20240101-000000.gz", ""),
            ("20240102-000000", "two"),
            ("20240103-000000", "three"),
            ("20240104-000000", "four"),
            ("20240104-000000.tmp", "half"),
        ] {
            fs::write(with_suffix(&log, suffix), text).unwrap();
        }
        prepare(&log, &ContainerLogs { max_size: 1, max_files: 5 }).unwrap();
        let left: Vec<String> = rotated(&log)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(left, ["0.log.20240102-000000.gz", "0.log.20240103-000000.gz", "0.log.20240104-000000.gz"]);
        let mut text = String::new();
        flate2::read::GzDecoder::new(fs::File::open(dir.path().join(&left[0])).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "two");
        assert!(dir.path().join("1.log.20240101-000000").exists());
    }
}

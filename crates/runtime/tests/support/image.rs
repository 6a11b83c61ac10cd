//! The image of the tests: busybox, made of Debian's busybox-static.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

const APPLETS: &str = "sh ls cat echo id sleep true false env hostname mkdir touch rm ln mount umount grep \
    wc head tail ps kill stat readlink dd nc wget ip unshare chmod chown mknod test pwd tee ping sort tr cut \
    setsid yes stty tty seq date find xargs cp mv du df printf expr nproc";

/// The image as `docker save` writes it, under the name `busybox`.
pub fn archive() -> Vec<u8> {
    let files = tempfile::tempdir().unwrap();
    tree(files.path());
    let layer = pack(|tar| {
        tar.follow_symlinks(false);
        tar.append_dir_all(".", files.path()).unwrap();
    });
    let digest: String =
        ring::digest::digest(&ring::digest::SHA256, &layer).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin", "FROM_IMAGE=yes"],
            "Cmd": ["sh", "-c", "echo default command"],
            "WorkingDir": "/tmp",
            "StopSignal": "SIGUSR1",
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": ["busybox:latest"], "Layers": ["layer.tar"]}
    ]);
    pack(|tar| {
        for (name, content) in [
            ("config.json", config.to_string().into_bytes()),
            ("layer.tar", layer),
            ("manifest.json", manifest.to_string().into_bytes()),
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, content.as_slice()).unwrap();
        }
    })
}

fn pack(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    fill(&mut builder);
    builder.into_inner().unwrap()
}

/// The files of the image.
fn tree(root: &Path) {
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/web", "var"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox"))
        .expect("busybox-static is installed (apt-get install busybox-static)");
    for applet in APPLETS.split_whitespace() {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/home/web:/bin/sh\n")
        .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:1001:\nlogs:x:2000:web\n").unwrap();
    // As systemd's images have it, dangling.
    symlink("../run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf")).unwrap();
    symlink("/run", root.join("var/run")).unwrap();
}

//! The image of the tests: busybox, made of Debian's busybox-static.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

const APPLETS: &str = "sh ls cat echo id sleep true false env hostname mkdir touch rm ln mount umount grep \
    wc head tail ps kill stat readlink dd nc wget ip unshare chmod chown mknod test pwd tee ping sort tr cut \
    setsid yes stty tty seq date find xargs cp mv du df printf expr nproc";

/// Puts the image into a data directory.
pub fn install(data_dir: &Path) {
    tree(&data_dir.join("images/busybox"));
}

/// The files of the image.
pub fn tree(root: &Path) {
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/web", "var"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox"))
        .expect("busybox-static is installed (apt-get install busybox-static)");
    for applet in APPLETS.split_whitespace() {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/home/web:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:1001:\nlogs:x:2000:web\n").unwrap();
    // As systemd's images have it, dangling.
    symlink("../run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf")).unwrap();
    symlink("/run", root.join("var/run")).unwrap();
}

//! Where events go: lines of a file, written by a thread of its own, in their order.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use thiserror::Error;

/// Lines that may wait for the disk. When more come, requests wait.
const QUEUE: usize = 4096;

#[derive(Debug, Error)]
#[error("cannot open the audit log {path}")]
pub struct SinkError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// How large the file grows, and how many old ones stay.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Bytes; 0: it is never rotated.
    pub max_size: u64,
    /// 0: all stay.
    pub backups: usize,
}

/// Takes lines.
pub struct Sink {
    lines: SyncSender<Vec<u8>>,
}

impl Sink {
    /// Opens the file (`-`: standard output) and starts the thread, which ends when the sink is dropped.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path, rotation: Rotation) -> Result<Self, SinkError> {
        let failed = |source| SinkError { path: path.to_owned(), source };
        let (lines, received) = sync_channel(QUEUE);
        let mut writer = Writer { path: path.to_owned(), rotation, file: None, size: 0 };
        writer.open().map_err(failed)?;
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(&received)).map_err(failed)?;
        Ok(Sink { lines })
    }

    /// Hands a line over; it waits when the disk is behind. `false`: it is lost.
    pub fn write(&self, line: Vec<u8>) -> bool {
        let taken = self.lines.send(line).is_ok();
        if !taken {
            tracing::error!("the audit log has ended; an event is lost");
        }
        taken
    }
}

impl Sink {
    /// Hands a line over if there is room for it. `false`: it is lost. Who is not known must not make others wait.
    pub fn offer(&self, line: Vec<u8>) -> bool {
        let taken = self.lines.try_send(line).is_ok();
        if !taken {
            tracing::debug!("the audit log is behind; an event of an unknown sender is lost");
        }
        taken
    }
}

struct Writer {
    path: PathBuf,
    rotation: Rotation,
    /// `None`: standard output.
    file: Option<File>,
    size: u64,
}

impl Writer {
    fn open(&mut self) -> std::io::Result<()> {
        if self.path.as_os_str() == "-" {
            return Ok(());
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn run(mut self, lines: &Receiver<Vec<u8>>) {
        while let Ok(mut line) = lines.recv() {
            line.push(b'\n');
            if let Err(error) = self.write(&line) {
                tracing::error!(path = %self.path.display(), %error, "an audit event could not be written");
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.rotation.max_size > 0 && self.size > 0 && self.size + line.len() as u64 > self.rotation.max_size {
            let rotated = self.rotate();
            if let Err(error) = rotated {
                tracing::error!(path = %self.path.display(), %error, "the audit log could not be rotated");
            }
        }
        match &mut self.file {
            Some(file) => file.write_all(line)?,
            None => std::io::stdout().lock().write_all(line)?,
        }
        self.size += line.len() as u64;
        Ok(())
    }

    /// Renames the file by the time and begins another. When that fails, the one there is goes on.
    fn rotate(&mut self) -> std::io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let extension = self.path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%f").to_string();
        let directory = self.path.parent().map(Path::to_owned).unwrap_or_default();
        std::fs::rename(&self.path, directory.join(format!("{stem}-{now}{extension}")))?;
        self.open()?;
        if self.rotation.backups > 0 {
            let look = if directory.as_os_str().is_empty() { Path::new(".") } else { &directory };
            let mut old: Vec<PathBuf> = std::fs::read_dir(look)?
                .filter_map(|entry| entry.ok().map(|e| e.path()))
                .filter(|p| {
                    let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    name.strip_prefix(&stem).is_some_and(|rest| rest.starts_with('-')) && name.ends_with(&extension)
                })
                .collect();
            old.sort();
            let surplus = old.len().saturating_sub(self.rotation.backups);
            for path in old.drain(..surplus) {
                match std::fs::remove_file(path) {
                    // Somebody else tidies up too.
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_and_old_ones_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let rotation = Rotation { max_size: 20, backups: 2 };
        let mut writer = Writer { path: path.clone(), rotation, file: None, size: 0 };
        writer.open().expect("a file");
        for i in 0..6 {
            writer.write(format!("line number {i}\n").as_bytes()).expect("written");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "line number 5\n");
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 3);
    }

    #[test]
    fn a_file_that_cannot_be_put_aside_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let mut writer =
            Writer { path: path.clone(), rotation: Rotation { max_size: 20, backups: 2 }, file: None, size: 0 };
        writer.open().expect("a file");
        writer.write(b"line number 0\n").expect("written");
        let moved = directory.path().join("elsewhere");
        std::fs::rename(&path, &moved).expect("moved");
        writer.write(b"line number 1\n").expect("written");
        assert_eq!(std::fs::read_to_string(&moved).expect("the file"), "line number 0\nline number 1\n");
    }
}

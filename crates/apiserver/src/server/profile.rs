//! `/debug/pprof/`: where the time of the process goes, in the format that `go tool pprof` reads.
//!
//! There is no sampling of stacks: a profile says what each thread used of the processors, as the kernel counted it. The
//! components of a cluster run on threads of their own names, so that is what tells them apart.

use super::chain::plain;
use crate::http::{Body, Response};
use crate::request::parameter;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a profile takes when nobody says.
const USUAL: u64 = 30;
const LONGEST: u64 = 3600;
/// How often threads are looked at, so that one that ends takes little with it.
const LOOK: Duration = Duration::from_millis(250);

const INDEX: &str = "<html>\n<head>\n<title>/debug/pprof/</title>\n</head>\n<body>\n/debug/pprof/\n<p>Types of profiles available:</p>\n\
<ul>\n<li><a href='cmdline'>cmdline</a>: The command line of this process.</li>\n\
<li><a href='profile?seconds=30'>profile</a>: Processor time by thread, over the seconds asked for; go tool pprof reads it.</li>\n\
</ul>\n</body>\n</html>\n";

/// Flags whose values are secrets.
const SECRETS: [&str; 2] = ["--certificate-key", "--token"];

fn without_secrets(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut secret = false;
    args.map(|arg| {
        let (flag, value) = arg.split_once('=').map_or((arg.as_str(), None), |(flag, value)| (flag, Some(value)));
        let is_value = std::mem::replace(&mut secret, SECRETS.contains(&flag) && value.is_none());
        match value {
            _ if is_value => "REDACTED".to_owned(),
            Some(_) if SECRETS.contains(&flag) => format!("{flag}=REDACTED"),
            _ => arg,
        }
    })
    .collect()
}

/// What is served at a path below `/debug/pprof`.
pub(super) async fn answer(path: &str, query: &str) -> Response<Body> {
    match path {
        "/debug/pprof" => {
            let mut response = plain(StatusCode::MOVED_PERMANENTLY, "");
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("/debug/pprof/"));
            response
        }
        "/debug/pprof/" => {
            let mut response = plain(StatusCode::OK, INDEX);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            response
        }
        "/debug/pprof/cmdline" => {
            let args = without_secrets(std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()));
            plain(StatusCode::OK, args.join("\0"))
        }
        "/debug/pprof/profile" => {
            let asked = parameter(query, "seconds").unwrap_or_default();
            let seconds = if asked.is_empty() { Some(USUAL) } else { asked.parse().ok() };
            match seconds.filter(|seconds| *seconds <= LONGEST) {
                // As in Go, what makes no sense is the usual time.
                Some(0) => profile(USUAL).await,
                Some(seconds) => profile(seconds).await,
                None => refusal(StatusCode::BAD_REQUEST, "seconds is no number up to 3600\n"),
            }
        }
        _ => refusal(StatusCode::NOT_FOUND, "Unknown profile\n"),
    }
}

fn refusal(code: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = plain(code, text);
    response.headers_mut().insert(HeaderName::from_static("x-go-pprof"), HeaderValue::from_static("1"));
    response
}

async fn profile(seconds: u64) -> Response<Body> {
    let (began, at) = (Instant::now(), Timestamp::now());
    let mut seen = Seen::default();
    seen.look(true);
    while began.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(LOOK).await;
        seen.look(false);
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    let written = packed.write_all(&encode(&seen.used, at, began.elapsed())).and_then(|()| packed.finish());
    let Ok(bytes) = written else { return refusal(StatusCode::INTERNAL_SERVER_ERROR, "the profile was not written\n") };
    let mut response = Response::new(Body::from(bytes::Bytes::from(bytes)));
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"profile\""));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What threads have used since the first look.
#[derive(Default)]
struct Seen {
    /// By thread, in nanoseconds since it began.
    last: HashMap<u32, u64>,
    /// By name of threads.
    used: BTreeMap<String, u64>,
}

impl Seen {
    fn look(&mut self, first: bool) {
        let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        for task in tasks {
            let Some(id) = task.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // It may have ended since it was listed.
            let (Some(time), Ok(name)) = (cpu_time(&task.path()), std::fs::read_to_string(task.path().join("comm")))
            else {
                continue;
            };
            // A thread that began since is counted from its beginning.
            let before = self.last.insert(id, time).unwrap_or(if first { time } else { 0 });
            *self.used.entry(name.trim().to_owned()).or_default() += time.saturating_sub(before);
        }
    }
}

/// The nanoseconds that a thread ran, as the scheduler counts them.
fn cpu_time(task: &Path) -> Option<u64> {
    std::fs::read_to_string(task.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
}

/// A message of protobuf.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }
    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
    fn of(&mut self, field: u64, numbers: &[(u64, u64)]) {
        let mut inner = Message::default();
        numbers.iter().for_each(|(field, value)| inner.number(*field, *value));
        self.bytes(field, &inner.0);
    }
}

/// `perftools.profiles.Profile`: one sample for each name of threads, with a stack of that name.
fn encode(used: &BTreeMap<String, u64>, at: Timestamp, took: Duration) -> Vec<u8> {
    const CPU: u64 = 1;
    const NANOSECONDS: u64 = 2;
    let mut strings: Vec<&str> = vec!["", "cpu", "nanoseconds"];
    let mut out = Message::default();
    out.of(1, &[(1, CPU), (2, NANOSECONDS)]);
    for (name, time) in used.iter().filter(|(_, time)| **time > 0) {
        let text = strings.len() as u64;
        // Stacks, locations and functions are numbered as their names are.
        strings.push(name);
        out.of(2, &[(1, text), (2, *time)]);
        let mut location = Message::default();
        location.number(1, text);
        location.of(4, &[(1, text)]);
        out.bytes(4, &location.0);
        out.of(5, &[(1, text), (2, text), (3, text)]);
    }
    strings.iter().for_each(|text| out.bytes(6, text.as_bytes()));
    out.number(9, u64::try_from(at.as_nanosecond()).unwrap_or(0));
    out.number(10, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    out.of(11, &[(1, CPU), (2, NANOSECONDS)]);
    out.number(12, 1);
    out.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::io::Read;

    #[test]
    fn the_command_line_is_shown_without_its_secrets() {
        let args = ["up", "--certificate-key", "5e5e", "--token=x.y", "--port", "0", "--certificate-key"];
        let shown = without_secrets(args.map(str::to_owned).into_iter());
        let wanted = ["up", "--certificate-key", "REDACTED", "--token=REDACTED", "--port", "0", "--certificate-key"];
        assert_eq!(shown, wanted);
    }

    #[tokio::test]
    async fn a_profile_names_the_threads_that_work() {
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stop = done.clone();
        let work = move || {
            let mut sum = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                sum = std::hint::black_box(sum.wrapping_add(1));
            }
        };
        let busy = std::thread::Builder::new().name("busy-bee".into()).spawn(work).expect("a thread");
        let response = answer("/debug/pprof/profile", "seconds=1").await;
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        busy.join().expect("no panic");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/octet-stream");
        let packed = response.into_body().collect().await.expect("a body").to_bytes();
        let mut profile = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut profile).expect("gzip");
        for word in ["cpu", "nanoseconds", "busy-bee"] {
            assert!(memchr::memmem::find(&profile, word.as_bytes()).is_some(), "{word}");
        }
    }

    #[test]
    fn a_profile_is_what_pprof_reads() {
        let used = BTreeMap::from([("a".to_owned(), 300), ("idle".to_owned(), 0)]);
        let bytes = encode(&used, Timestamp::UNIX_EPOCH, Duration::from_nanos(5));
        let expected: &[&[u8]] = &[
            b"\x0a\x04\x08\x01\x10\x02",
            b"\x12\x05\x08\x03\x10\xac\x02",
            b"\x22\x06\x08\x03\x22\x02\x08\x03",
            b"\x2a\x06\x08\x03\x10\x03\x18\x03",
            b"\x32\x00\x32\x03cpu\x32\x0bnanoseconds\x32\x01a",
            b"\x48\x00\x50\x05\x5a\x04\x08\x01\x10\x02\x60\x01",
        ];
        assert_eq!(bytes, expected.concat());
    }
}

//! Downloads against a loopback server that misbehaves in every way a real one might.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gumbel_data::{DataError, Digest, FetchOptions, FileSpec, Progress, Source, dataset, fetch_file};

/// What the server does with one request.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// The whole file, or the range that was asked for.
    Good,
    /// The whole file, whatever was asked for.
    IgnoreRange,
    /// Promises the rest of the file, sends so many bytes of it, closes.
    Truncate(usize),
    /// As `Truncate`, but keeps the connection open in silence.
    Stall(usize),
    /// So many bytes without a promise, then closes: looks complete.
    ShortWithoutLength(usize),
    /// The right length with a wrong byte.
    Corrupt,
    /// More than the file, without saying so.
    Endless,
    /// Another range than the one asked for.
    WrongRange,
    /// Nothing but a status.
    Status(u16),
    /// Accepts and never answers.
    Silence,
}

struct Server {
    address: String,
    /// The `Range` header of each request.
    ranges: Arc<Mutex<Vec<Option<String>>>>,
}

impl Server {
    /// Answers request `i` with `acts[i]`, and those after the last with the last.
    fn start(content: Vec<u8>, acts: Vec<Act>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&ranges);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(range) = read_request(&stream) else { continue };
                let index = log.lock().unwrap().len();
                log.lock().unwrap().push(range.clone());
                let act = acts[index.min(acts.len() - 1)];
                let content = content.clone();
                // A client that has seen enough closes: write errors are expected. One thread each, for stalls.
                thread::spawn(move || drop(answer(stream, &content, range.as_deref(), act)));
            }
        });
        Server { address, ranges }
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.ranges.lock().unwrap().clone()
    }
}

/// Reads the request up to the empty line; its `Range`.
fn read_request(stream: &TcpStream) -> Option<Option<String>> {
    let mut range = None;
    for line in BufReader::new(stream).lines() {
        let line = line.ok()?;
        if line.is_empty() {
            return Some(range);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("range")
        {
            range = Some(value.trim().to_string());
        }
    }
    None
}

fn answer(mut stream: TcpStream, content: &[u8], range: Option<&str>, act: Act) -> std::io::Result<()> {
    let first = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0usize);
    let whole = matches!(act, Act::IgnoreRange | Act::Corrupt);
    let first = if whole { 0 } else { first };
    if first > 0 && first >= content.len() {
        return write!(stream, "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let body = &content[first..];
    let length = body.len();
    let close = "Connection: close\r\n\r\n";
    let head = if first > 0 {
        let last = content.len() - 1;
        format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{}\r\n", content.len())
    } else {
        "HTTP/1.1 200 OK\r\n".to_string()
    };
    match act {
        Act::Good | Act::IgnoreRange => {
            write!(stream, "{head}Content-Length: {length}\r\n{close}")?;
            stream.write_all(body)
        }
        Act::Truncate(n) => {
            write!(stream, "{head}Content-Length: {length}\r\n{close}")?;
            stream.write_all(&body[..n.min(length)])
        }
        Act::Stall(n) => {
            write!(stream, "{head}Content-Length: {length}\r\n{close}")?;
            stream.write_all(&body[..n.min(length)])?;
            thread::sleep(Duration::from_secs(20));
            Ok(())
        }
        Act::ShortWithoutLength(n) => {
            write!(stream, "{head}{close}")?;
            stream.write_all(&body[..n.min(length)])
        }
        Act::Corrupt => {
            let mut body = body.to_vec();
            body[length / 2] ^= 1;
            write!(stream, "{head}Content-Length: {length}\r\n{close}")?;
            stream.write_all(&body)
        }
        Act::Endless => {
            write!(stream, "{head}{close}")?;
            loop {
                stream.write_all(body)?;
            }
        }
        Act::WrongRange => {
            let body = &content[1..];
            write!(stream, "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-{}/*\r\n", content.len() - 1)?;
            write!(stream, "Content-Length: {}\r\n{close}", body.len())?;
            stream.write_all(body)
        }
        Act::Status(status) => write!(stream, "HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n{close}"),
        Act::Silence => {
            thread::sleep(Duration::from_secs(20));
            Ok(())
        }
    }
}

fn content() -> Vec<u8> {
    (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// MD5 of [`content`], found by the check itself so that the tests need no hashing of their own.
fn spec(folder: &Path, urls: Vec<String>) -> FileSpec {
    let mut spec = FileSpec { name: "data.bin".into(), digests: vec![], max_bytes: 300_000, urls, raw: None };
    let copy = folder.join("copy");
    fs::write(&copy, content()).unwrap();
    spec.digests = spec.check(&copy).unwrap().found.into_iter().filter(|d| matches!(d, Digest::Md5(_))).collect();
    fs::remove_file(copy).unwrap();
    spec
}

fn options() -> FetchOptions {
    FetchOptions {
        connect_timeout: Duration::from_secs(5),
        stall_timeout: Duration::from_millis(500),
        rounds: 3,
        pause: Duration::from_millis(1),
        mirrors: vec![],
    }
}

/// Fetches from a server that acts so; checks that what is there afterwards is good or nothing.
fn try_fetch(acts: &[Act]) -> (Result<(), DataError>, Vec<Option<String>>) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(content(), acts.to_vec());
    let spec = spec(folder.path(), vec![format!("{}/data.bin", server.address)]);
    let result = fetch_file(&spec, folder.path(), &options(), &mut |_| {});
    let path = folder.path().join("data.bin");
    assert_eq!(path.exists(), result.is_ok(), "{result:?}");
    match &result {
        Ok(_) => {
            assert_eq!(fs::read(&path).unwrap(), content());
            assert!(!folder.path().join("data.bin.part").exists());
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.contains('\n') && message.contains("data.bin"), "{message}");
        }
    }
    (result.map(drop), server.ranges())
}

#[test]
fn good_at_once() {
    let (result, ranges) = try_fetch(&[Act::Good]);
    result.unwrap();
    assert_eq!(ranges, [None]);
}

#[test]
fn truncated_then_resumed() {
    let (result, ranges) = try_fetch(&[Act::Truncate(50_000), Act::Truncate(30_000), Act::Good]);
    result.unwrap();
    assert_eq!(ranges, [None, Some("bytes=50000-".into()), Some("bytes=80000-".into())]);
}

#[test]
fn stalled_then_resumed() {
    let start = Instant::now();
    let (result, ranges) = try_fetch(&[Act::Stall(60_000), Act::Good]);
    result.unwrap();
    assert_eq!(ranges, [None, Some("bytes=60000-".into())]);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn range_ignored() {
    let (result, ranges) = try_fetch(&[Act::Truncate(50_000), Act::IgnoreRange]);
    result.unwrap();
    assert_eq!(ranges.len(), 2);
}

#[test]
fn wrong_range_restarts() {
    let (result, ranges) = try_fetch(&[Act::Truncate(50_000), Act::WrongRange, Act::Good]);
    result.unwrap();
    assert_eq!(ranges[2], None);
}

#[test]
fn corrupt_then_good() {
    let (result, ranges) = try_fetch(&[Act::Corrupt, Act::Good]);
    result.unwrap();
    assert_eq!(ranges, [None, None]);
}

#[test]
fn short_answer_without_length_is_noticed() {
    let (result, ranges) = try_fetch(&[Act::ShortWithoutLength(1000), Act::Good]);
    result.unwrap();
    assert_eq!(ranges.len(), 2);
}

#[test]
fn always_bad() {
    for act in [Act::Corrupt, Act::Endless, Act::Status(404), Act::Status(500), Act::Truncate(0), Act::WrongRange] {
        let (result, ranges) = try_fetch(&[act]);
        assert!(matches!(result, Err(DataError::Fetch { attempts: 3, .. })), "{act:?}: {result:?}");
        assert_eq!(ranges.len(), 3, "{act:?}");
    }
}

#[test]
fn silence_ends() {
    let start = Instant::now();
    let (result, _) = try_fetch(&[Act::Silence]);
    assert!(matches!(result, Err(DataError::Fetch { .. })));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_too_long_part_is_restarted_after_416() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(content(), vec![Act::Good]);
    let spec = spec(folder.path(), vec![server.address.clone()]);
    fs::write(folder.path().join("data.bin.part"), vec![0; 250_000]).unwrap();
    fetch_file(&spec, folder.path(), &options(), &mut |_| {}).unwrap();
    assert_eq!(server.ranges(), [Some("bytes=250000-".into()), None]);
}

#[test]
fn a_complete_part_needs_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(content(), vec![Act::Good]);
    let spec = spec(folder.path(), vec![server.address.clone()]);
    fs::write(folder.path().join("data.bin.part"), content()).unwrap();
    fetch_file(&spec, folder.path(), &options(), &mut |_| {}).unwrap();
    assert!(server.ranges().is_empty());
}

/// Whoever may write the folder cannot make a download overwrite another file.
#[cfg(unix)]
#[test]
fn a_part_that_is_a_link_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    fs::write(&other, b"precious").unwrap();
    std::os::unix::fs::symlink(&other, folder.path().join("data.bin.part")).unwrap();
    let server = Server::start(content(), vec![Act::Good]);
    let spec = spec(folder.path(), vec![server.address.clone()]);
    let path = fetch_file(&spec, folder.path(), &options(), &mut |_| {}).unwrap();
    assert_eq!((fs::read(&path).unwrap(), fs::read(&other).unwrap()), (content(), b"precious".to_vec()));
    assert!(!path.is_symlink());
}

#[test]
fn the_next_mirror_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let (bad, good) = (Server::start(content(), vec![Act::Status(500)]), Server::start(content(), vec![Act::Good]));
    // Nobody listens at the first address.
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let spec = spec(folder.path(), vec![format!("http://{unused}/"), bad.address.clone(), good.address.clone()]);
    let mut failures = Vec::new();
    let mut progress = |p: Progress<'_>| {
        if let Progress::Failed { error, .. } = p {
            failures.push(error.to_string());
        }
    };
    fetch_file(&spec, folder.path(), &options(), &mut progress).unwrap();
    assert_eq!(failures.len(), 2);
    assert!(failures[1].contains("expected HTTP status 200 or 206, found 500"), "{}", failures[1]);
}

#[test]
fn good_files_are_kept_and_bad_ones_replaced_only_by_good_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.bin");
    let server = Server::start(content(), vec![Act::Status(404), Act::Status(404), Act::Status(404), Act::Good]);
    let spec = spec(folder.path(), vec![server.address.clone()]);
    fs::write(&path, b"damaged").unwrap();
    assert!(fetch_file(&spec, folder.path(), &options(), &mut |_| {}).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"damaged");
    fetch_file(&spec, folder.path(), &options(), &mut |_| {}).unwrap();
    assert_eq!(fs::read(&path).unwrap(), content());
    fetch_file(&spec, folder.path(), &options(), &mut |_| {}).unwrap();
    assert_eq!(server.ranges().len(), 4);
}

#[test]
fn unverifiable_files_are_not_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let spec = FileSpec { digests: vec![], ..spec(folder.path(), vec!["http://127.0.0.1:9/".into()]) };
    assert!(matches!(fetch_file(&spec, folder.path(), &options(), &mut |_| {}), Err(DataError::Argument { .. })));
}

#[test]
fn load_uses_the_given_mirrors_and_respects_offline() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(content(), vec![Act::Good]);
    let mut source = Source {
        cache_dir: Some(folder.path().into()),
        fetch: FetchOptions { mirrors: vec![server.address.clone()], ..options() },
        ..Source::default()
    };
    // What the server has is not MNIST: every attempt ends at the digest or the size.
    let mut urls = Vec::new();
    let mut progress = |p: Progress<'_>| {
        if let Progress::Requesting { url, .. } = p {
            urls.push(url.to_string());
        }
    };
    let result = gumbel_data::load(&dataset("mnist").unwrap(), &source, &mut progress);
    assert!(matches!(result, Err(DataError::Fetch { .. })), "{result:?}");
    assert_eq!(urls[0], format!("{}/mnist/train-images-idx3-ubyte.gz", server.address));

    source.offline = true;
    let seen = server.ranges().len();
    let error = gumbel_data::load(&dataset("mnist").unwrap(), &source, &mut |_| {}).unwrap_err();
    assert!(error.is_missing() && error.to_string().contains("offline"), "{error}");
    let error = gumbel_data::fetch(&dataset("mnist").unwrap(), &source, &mut |_| {}).unwrap_err();
    assert!(error.is_missing() && error.to_string().contains("offline"), "{error}");
    source = Source { data_dir: Some(folder.path().into()), offline: false, ..source };
    let error = gumbel_data::load(&dataset("fashion-mnist").unwrap(), &source, &mut |_| {}).unwrap_err();
    assert!(error.is_missing() && error.to_string().contains("train-images-idx3-ubyte.gz"), "{error}");
    // To ask what is there fetches nothing, even where it might.
    source = Source { data_dir: None, ..source };
    let error = gumbel_data::info(&dataset("fashion-mnist").unwrap(), &source).unwrap_err();
    assert!(error.is_missing() && error.to_string().contains("fashion-mnist is not in"), "{error}");
    assert_eq!(server.ranges().len(), seen);
}

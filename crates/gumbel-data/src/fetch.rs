//! Downloads that end with a verified file or leave what was there.
//!
//! A file is downloaded to `NAME.part` beside its final place, resumed from there after an interruption, compared with
//! the published digests, synced, and only then renamed. A lock file keeps two processes from writing the same part.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ureq::Agent;
use ureq::http::{Response, StatusCode, header};

use crate::DataError;
use crate::error::Cause;
use crate::files::FileSpec;

/// What a download is doing; passed to the caller's function as it happens.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Another process is downloading into this folder; its end is waited for.
    Waiting {
        /// The folder.
        folder: &'a Path,
    },
    /// A request is sent.
    Requesting {
        /// Name of the file.
        file: &'a str,
        /// Full address.
        url: &'a str,
        /// Bytes that an earlier attempt left and that are not asked for again.
        resumed: u64,
    },
    /// More of a file has arrived (about once per megabyte, and at the end).
    Received {
        /// Name of the file.
        file: &'a str,
        /// Bytes so far, those of earlier attempts included.
        bytes: u64,
        /// Size of the whole file, if the server says it.
        total: Option<u64>,
    },
    /// An attempt failed; another may follow.
    Failed {
        /// Name of the file.
        file: &'a str,
        /// Why.
        error: &'a DataError,
    },
    /// A file was verified and is in its place.
    Done {
        /// Name of the file.
        file: &'a str,
        /// Where it is.
        path: &'a Path,
    },
}

/// How patiently to download, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchOptions {
    /// To find the host and connect, encryption included.
    pub connect_timeout: Duration,
    /// The longest silence in an answer or a download.
    pub stall_timeout: Duration,
    /// How many times the list of mirrors is gone through.
    pub rounds: usize,
    /// Pause between rounds.
    pub pause: Duration,
    /// If not empty, used in place of the public mirrors: a file is then at `MIRROR/DATASET/FILE`.
    pub mirrors: Vec<String>,
}

impl Default for FetchOptions {
    fn default() -> FetchOptions {
        FetchOptions {
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            rounds: 3,
            pause: Duration::from_secs(1),
            mirrors: Vec::new(),
        }
    }
}

impl FetchOptions {
    /// `file` of the data set `name`, with the addresses that these options ask for.
    pub(crate) fn redirect(&self, name: &str, mut file: FileSpec) -> FileSpec {
        if !self.mirrors.is_empty() {
            let address = |base: &String| format!("{}/{name}/{}", base.trim_end_matches('/'), file.name);
            file.urls = self.mirrors.iter().map(address).collect();
        }
        file
    }
}

/// Makes sure that a good copy of `file` is in `folder`, downloading it if necessary, and returns its path.
///
/// A copy that is there already and has a right digest is kept. Each attempt uses the next mirror and continues what
/// earlier ones left. A download that is damaged, too large or incomplete never replaces a file.
///
/// # Errors
/// [`DataError::Fetch`] with the last attempt's error when all attempts failed; [`DataError::Io`] if the folder or the
/// files in it cannot be written; [`DataError::Argument`] if `file` has no known digest or no address.
pub fn fetch_file(
    file: &FileSpec,
    folder: &Path,
    options: &FetchOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, DataError> {
    if !file.is_public() {
        return Err(DataError::argument("file to fetch", "a known digest and an address", &file.name));
    }
    fs::create_dir_all(folder).map_err(DataError::io("create", folder))?;
    let _lock = lock(folder, progress)?;
    let path = folder.join(&file.name);
    if path.is_file() && file.check(&path)?.matches == Some(true) {
        return Ok(path);
    }
    let part = folder.join(format!("{}.part", file.name));
    // Its name must be known to the next process, hence can be guessed: what it may point to is not written.
    if part.is_symlink() {
        fs::remove_file(&part).map_err(DataError::io("remove", &part))?;
    }
    let mut download = Download { file, part, path, progress };
    // Complete already, if the last process ended just before its renaming.
    if download.part.is_file() && file.check(&download.part)?.matches == Some(true) {
        return download.finish();
    }
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("gumbel-data/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(options.connect_timeout))
        .timeout_connect(Some(options.connect_timeout))
        .timeout_send_request(Some(options.stall_timeout))
        .timeout_recv_response(Some(options.stall_timeout))
        .timeout_per_read(Some(options.stall_timeout))
        .build()
        .into();
    let mut last = None;
    let mut attempts = 0;
    for round in 0..options.rounds.max(1) {
        if round > 0 {
            thread::sleep(options.pause);
        }
        for url in &file.urls {
            attempts += 1;
            match download.attempt(&agent, url) {
                Ok(()) => return download.finish(),
                // Other mirrors do not help against a full disk.
                Err(error @ DataError::Io { .. }) => return Err(error),
                Err(error) => {
                    (download.progress)(Progress::Failed { file: &file.name, error: &error });
                    last = Some(Box::new(error));
                }
            }
        }
    }
    Err(match last {
        Some(source) => DataError::Fetch { file: file.name.clone(), attempts, source },
        None => DataError::argument("file to fetch", "an address", &file.name),
    })
}

/// One process at a time downloads into a folder; the lock ends with the file handle.
fn lock(folder: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<File, DataError> {
    let path = folder.join(".lock");
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(&path);
    let file = file.map_err(DataError::io("create", &path))?;
    if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
        progress(Progress::Waiting { folder });
        // Where locks are not supported the digests still guard against a mixed-up download.
        let _ = file.lock();
    }
    Ok(file)
}

struct Download<'a> {
    file: &'a FileSpec,
    part: PathBuf,
    path: PathBuf,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Download<'_> {
    /// One request: continues the part, and succeeds if the part is then a good file.
    fn attempt(&mut self, agent: &Agent, url: &str) -> Result<(), DataError> {
        let part = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&self.part);
        let part = &mut part.map_err(DataError::io("open", &self.part))?;
        let result = self.receive(part, agent, url);
        part.sync_all().map_err(DataError::io("write", &self.part))?;
        result?;
        let verdict = self.file.check(&self.part)?.into_result(&self.part);
        if verdict.is_err() {
            self.restart(part)?;
        }
        verdict
    }

    fn receive(&mut self, part: &mut File, agent: &Agent, url: &str) -> Result<(), DataError> {
        let limit = self.file.max_bytes;
        let mut have = part.metadata().map_err(DataError::io("read", &self.part))?.len();
        if have >= limit {
            // It was complete, yet its digest was wrong.
            self.restart(part)?;
            have = 0;
        }
        let mut response = self.request(agent, url, have)?;
        if have > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            self.restart(part)?;
            have = 0;
            response = self.request(agent, url, 0)?;
        }
        let wrong =
            |expected: String, found: String| DataError::Network { url: url.into(), expected, found, source: None };
        match response.status() {
            // A server that ignores ranges sends the whole file.
            StatusCode::OK => {
                self.restart(part)?;
                have = 0;
            }
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(have) => {}
            StatusCode::PARTIAL_CONTENT => {
                let found = text(&response, header::CONTENT_RANGE).unwrap_or("no range").to_string();
                self.restart(part)?;
                return Err(wrong(format!("the range from byte {have}"), found));
            }
            status => return Err(wrong("HTTP status 200 or 206".into(), status.to_string())),
        }
        let length = text(&response, header::CONTENT_LENGTH).and_then(|n| n.parse::<u64>().ok());
        let total = length.map(|n| n.saturating_add(have));
        let too_large = |found: u64| wrong(format!("at most {limit} bytes"), format!("{found} or more"));
        if let Some(total) = total.filter(|n| *n > limit) {
            return Err(too_large(total));
        }

        part.seek(SeekFrom::Start(have)).map_err(DataError::io("write", &self.part))?;
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        let mut reported = have;
        loop {
            let read = match body.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let expected = total.map_or("the rest of the file".into(), |n| format!("{n} bytes"));
                    let found = format!("{have}, then: {error}");
                    return Err(DataError::Network { url: url.into(), expected, found, source: Some(error.into()) });
                }
            };
            if read == 0 {
                break;
            }
            if have + read as u64 > limit {
                self.restart(part)?;
                return Err(too_large(have + read as u64));
            }
            part.write_all(&buffer[..read]).map_err(DataError::io("write", &self.part))?;
            have += read as u64;
            if have - reported >= 1 << 20 {
                reported = have;
                (self.progress)(Progress::Received { file: &self.file.name, bytes: have, total });
            }
        }
        (self.progress)(Progress::Received { file: &self.file.name, bytes: have, total });
        match total {
            Some(total) if have < total => Err(wrong(format!("{total} bytes"), have.to_string())),
            _ => Ok(()),
        }
    }

    fn request(&mut self, agent: &Agent, url: &str, have: u64) -> Result<Response<ureq::Body>, DataError> {
        (self.progress)(Progress::Requesting { file: &self.file.name, url, resumed: have });
        // The digests are those of the packed files: no encoding on the way.
        let mut request = agent.get(url).header(header::ACCEPT_ENCODING, "identity");
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        request.call().map_err(|error| DataError::Network {
            url: url.into(),
            expected: "an answer".into(),
            found: error.to_string(),
            source: Some(Cause::from(error)),
        })
    }

    fn restart(&self, part: &mut File) -> Result<(), DataError> {
        part.set_len(0).and_then(|()| part.rewind()).map_err(DataError::io("write", &self.part))
    }

    /// Puts the verified part in the file's place.
    fn finish(self) -> Result<PathBuf, DataError> {
        fs::rename(&self.part, &self.path).map_err(DataError::io("replace", &self.path))?;
        // The renaming itself lives in the folder; not every system can sync one.
        if let Some(folder) = self.path.parent().and_then(|folder| File::open(folder).ok()) {
            let _ = folder.sync_all();
        }
        (self.progress)(Progress::Done { file: &self.file.name, path: &self.path });
        Ok(self.path)
    }
}

fn text<T>(response: &Response<T>, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// The first byte's position in `Content-Range: bytes FIRST-LAST/TOTAL`.
fn range_start<T>(response: &Response<T>) -> Option<u64> {
    let range = text(response, header::CONTENT_RANGE)?.trim().strip_prefix("bytes")?;
    range.split('-').next()?.trim().parse().ok()
}

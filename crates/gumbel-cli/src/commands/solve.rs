//! `gumbel solve`: a stream of problems in, a stream of answers out.

use crate::args::{Common, Flush, Format, Solve};
use crate::output::Failure;
use crate::problem::{Answer, Bad, Solver, Sparse, Unreadable};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Bytes read at once; what is there is solved together.
const BUFFER: usize = 1 << 20;

/// The longest line, in bytes: a dense pairwise problem of the largest size fits many times.
const LONGEST: u64 = 1 << 28;

#[derive(Serialize)]
struct Refused {
    error: String,
}

/// Reads problems, prints answers.
pub fn run(_: &Common, command: &Solve) -> Result<(), Failure> {
    let limit = command.limit.map(Duration::from_secs_f64);
    if command.minimise && command.format == Format::Json {
        return Err(Failure::Usage("--minimise goes with --format sparse only: JSON problems are maximised".into()));
    }
    let (name, input): (String, Box<dyn Read>) = match command.file.as_deref() {
        Some(path) if path != Path::new("-") => {
            let file = File::open(path).map_err(|e| Failure::Other(format!("{}: {e}", path.display())))?;
            (path.display().to_string(), Box::new(file))
        }
        _ => ("standard input".into(), Box::new(io::stdin())),
    };
    let mut input = BufReader::with_capacity(BUFFER, input);
    // Standard output by itself writes line by line.
    let mut out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
    let read_failed = |e: io::Error| Failure::Other(format!("{name}: {e}"));
    let (mut answered, mut refused) = (0usize, 0usize);
    let mut print = |answers: Vec<Line>| -> Result<bool, Failure> {
        for answer in answers {
            refused += answer.is_err() as usize;
            answered += 1;
            let (Ok(line) | Err(line)) = answer;
            match out.write_all(&line) {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                other => other.map_err(|e| Failure::Other(format!("standard output: {e}")))?,
            }
        }
        match out.flush() {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            other => other.map(|()| true).map_err(|e| Failure::Other(format!("standard output: {e}"))),
        }
    };
    match command.format {
        Format::Json => {
            let mut chunk = Chunk::default();
            while chunk.read(&mut input).map_err(read_failed)? {
                let read_on = match command.flush {
                    Flush::Block => print(chunk.solve(limit))?,
                    Flush::Line => chunk.solve_each(limit, |answer| print(vec![answer]))?,
                };
                if !read_on {
                    return Ok(());
                }
            }
        }
        Format::Sparse => {
            // One after the other: each may take its whole time limit, and its answer should not wait for the rest.
            let mut solver = Solver::new(limit);
            let mut problems = Sparse::new(input, command.minimise);
            let unreadable = |e| match e {
                Unreadable::Input(e) => read_failed(e),
                Unreadable::Text(_) => Failure::Other(format!("{name}: {e}")),
            };
            while let Some(answer) = problems.answer(&mut solver).map_err(unreadable)? {
                if !print(vec![encode(answer)])? {
                    return Ok(());
                }
            }
        }
    }
    match refused {
        0 => Ok(()),
        _ => Err(Failure::Other(format!("{refused} of {answered} problems were refused; see their \"error\"s"))),
    }
}

/// Lines that are solved together: all that could be read without waiting.
#[derive(Default)]
struct Chunk {
    text: Vec<u8>,
    /// End of each line in `text`.
    ends: Vec<usize>,
    /// Lines that were longer than allowed: cut off.
    long: Vec<bool>,
}

impl Chunk {
    /// Reads at least one line, if there is one, and those that have arrived with it.
    fn read(&mut self, input: &mut BufReader<Box<dyn Read>>) -> io::Result<bool> {
        self.text.clear();
        self.ends.clear();
        self.long.clear();
        loop {
            let start = self.text.len();
            if input.by_ref().take(LONGEST).read_until(b'\n', &mut self.text)? == 0 {
                break;
            }
            let whole = self.text.last() == Some(&b'\n') || ((self.text.len() - start) as u64) < LONGEST;
            if !whole {
                self.text.truncate(start);
                skip_line(input)?;
            }
            self.ends.push(self.text.len());
            self.long.push(!whole);
            if !input.buffer().contains(&b'\n') {
                break;
            }
        }
        Ok(!self.ends.is_empty())
    }

    /// Answers in the order of the lines; blank lines have none.
    fn solve(&self, limit: Option<Duration>) -> Vec<Line> {
        let lines = (0..self.ends.len()).into_par_iter();
        let lines = lines.map_init(|| Solver::new(limit), |solver, i| self.line(i, solver));
        lines.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    /// Hands on every answer, in the order of the lines, as soon as it and those before it are there; `false` where
    /// nobody reads them any more.
    fn solve_each(
        &self,
        limit: Option<Duration>,
        mut print: impl FnMut(Line) -> Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        let threads = rayon::current_num_threads().min(self.ends.len());
        if threads == 1 {
            let mut solver = Solver::new(limit);
            for i in 0..self.ends.len() {
                if let Some(answer) = self.line(i, &mut solver)
                    && !print(answer)?
                {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        let next = AtomicUsize::new(0);
        let (send, answers) = mpsc::channel();
        // Threads of their own: this one, which writes, may be one of the pool's, and those would wait for it.
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (send, next) = (send.clone(), &next);
                scope.spawn(move || {
                    let mut solver = Solver::new(limit);
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= self.ends.len() || send.send((i, self.line(i, &mut solver))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(send);
            let (mut due, mut early) = (0, BTreeMap::new());
            for (i, answer) in answers {
                early.insert(i, answer);
                while let Some(answer) = early.remove(&due) {
                    due += 1;
                    if let Some(answer) = answer
                        && !print(answer)?
                    {
                        return Ok(false);
                    }
                }
            }
            Ok(true)
        })
    }

    /// The answer to a line, if it is not blank.
    fn line(&self, i: usize, solver: &mut Solver) -> Option<Line> {
        let line = self.text[if i == 0 { 0 } else { self.ends[i - 1] }..self.ends[i]].trim_ascii();
        match self.long[i] {
            true => Some(encode(Err(Bad::Text(format!("the line is longer than {LONGEST} bytes"))))),
            false => (!line.is_empty()).then(|| encode(solver.line(line))),
        }
    }
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let (used, done) = match buffer.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(used);
        if done {
            return Ok(());
        }
    }
}

/// A line of output; `Err` for a refused problem.
type Line = Result<Vec<u8>, Vec<u8>>;

fn encode(answer: Result<Answer, Bad>) -> Line {
    let line = |value: serde_json::Result<Vec<u8>>| {
        let mut line = value.expect("our records are plain data");
        line.push(b'\n');
        line
    };
    match answer {
        Ok(answer) => Ok(line(serde_json::to_vec(&answer))),
        Err(e) => Err(line(serde_json::to_vec(&Refused { error: e.to_string() }))),
    }
}

//! The quick way to read a line: a scanner for problems as programs write them.
//!
//! It reports no errors. Whatever it does not expect (escapes, unknown or repeated fields, ragged lists, numbers out of
//! range, broken JSON) it leaves to the reader on serde, whose word counts; what it accepts, that one reads alike.

use super::{Array, Edges, Kind, Problem, Reader, in_range};

/// Lists nest at most this deep in any structure.
const DEEPEST: usize = 3;

/// Powers of ten that f64 holds exactly, as many as 19 digits need.
const POWERS: [f64; 20] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19];

/// `1 / 10^p` as `reciprocal / 2^shift` with a reciprocal of 64 bits, rounded down.
const RECIPROCALS: [(u64, u32); 20] = {
    let mut table = [(0, 0); 20];
    let (mut p, mut power) = (0, 1u64);
    while p < 20 {
        let bits = 64 - power.leading_zeros() - power.is_power_of_two() as u32; // 2^(bits - 1) < power <= 2^bits
        let shift = 63 + bits;
        table[p] = ((1u128 << shift).div_euclid(power as u128) as u64, shift);
        if p < 19 {
            power *= 10;
        }
        p += 1;
    }
    table
};

/// `digits / 10^places` rounded to f64, where that can be decided with 64 bits; `digits` has more than 53.
fn divided(digits: u64, places: usize) -> Option<f64> {
    let (reciprocal, shift) = RECIPROCALS[places];
    let lead = digits.leading_zeros();
    let product = (digits << lead) as u128 * reciprocal as u128; // in [2^126, 2^128)
    let short = product.leading_zeros();
    // The quotient lies between `high` and `high + 3`, in units of 2^exponent.
    let high = (product << short >> 64) as u64;
    let exponent = 64 - (shift + lead + short) as i32;
    const REST: u32 = 64 - f64::MANTISSA_DIGITS;
    const MIDDLE: u64 = 1 << (REST - 1);
    let rest = high & (2 * MIDDLE - 1);
    if (MIDDLE - 3..=MIDDLE).contains(&rest) {
        return None;
    }
    let mantissa = (high >> REST) + (rest > MIDDLE) as u64;
    // Both factors are exact, and so is their product: the quotient is a normal number.
    Some(mantissa as f64 * f64::from_bits(((1023 + exponent + REST as i32) as u64) << 52))
}

/// The problem that the whole line holds.
pub(super) fn read(line: &[u8]) -> Option<Problem> {
    let mut scanner = Scanner { text: line, at: 0 };
    let problem = scanner.problem()?;
    scanner.blank();
    (scanner.at == line.len()).then_some(problem)
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn problem(&mut self) -> Option<Problem> {
        let mut problem = Problem::default();
        let mut seen = [false; 2];
        self.take(b'{')?;
        loop {
            let name = self.string()?;
            self.take(b':')?;
            match name {
                b"structure" => {
                    once(&mut seen[0])?;
                    problem.structure = Kind::named(std::str::from_utf8(self.string()?).ok()?)?;
                }
                b"unary" => put(&mut problem.unary, self.array()?)?,
                b"weights" => put(&mut problem.weights, self.array()?)?,
                b"scores" => put(&mut problem.scores, self.array()?)?,
                b"transition" => put(&mut problem.transition, self.array()?)?,
                b"pairs" => put(&mut problem.pairs, self.edges()?)?,
                b"edges" => put(&mut problem.edges, self.edges()?)?,
                b"k" => put(&mut problem.k, self.index()?)?,
                b"nodes" => put(&mut problem.nodes, self.index()?)?,
                b"root" => put(&mut problem.root, self.index()?)?,
                b"sum" => {
                    once(&mut seen[1])?;
                    problem.sum = self.word(b"true").is_some();
                    problem.sum.then_some(()).or_else(|| self.word(b"false"))?;
                }
                _ => return None,
            }
            if !self.another(b'}')? {
                break;
            }
        }
        seen[0].then_some(problem)
    }

    fn array(&mut self) -> Option<Array> {
        let mut reader = self.reader();
        self.list(0, &mut reader)?;
        Some(reader.into())
    }

    /// A list of numbers or of lists, at a depth of nested lists.
    fn list(&mut self, depth: usize, reader: &mut Reader) -> Option<()> {
        self.take(b'[')?;
        reader.open(depth).ok()?;
        let mut count = 0;
        if self.take(b']').is_none() {
            loop {
                self.value(depth + 1, reader)?;
                count += 1;
                if !self.another(b']')? {
                    break;
                }
            }
        }
        reader.close(depth, count).ok()
    }

    fn value(&mut self, depth: usize, reader: &mut Reader) -> Option<()> {
        self.blank();
        match self.text.get(self.at)? {
            b'[' if depth < DEEPEST => self.list(depth, reader),
            b'n' => {
                self.word(b"null")?;
                reader.number(depth, f64::NEG_INFINITY).ok()
            }
            _ => {
                let value = self.number(reader)?;
                reader.number(depth, value).ok()
            }
        }
    }

    fn edges(&mut self) -> Option<Edges> {
        let mut reader = self.reader();
        let mut ends = Vec::with_capacity(reader.values.capacity());
        self.take(b'[')?;
        if self.take(b']').is_none() {
            loop {
                self.take(b'[')?;
                let i = self.index()?;
                self.take(b',')?;
                let j = self.index()?;
                self.take(b',')?;
                self.value(0, &mut reader)?;
                self.take(b']')?;
                ends.push((i, j));
                if !self.another(b']')? {
                    break;
                }
            }
        }
        Some(Edges { ends, shape: reader.shape, values: reader.values, lost: reader.lost })
    }

    /// With room for what may follow: a number and its comma take some eight bytes. What stays unused costs nothing.
    fn reader(&self) -> Reader {
        Reader { values: Vec::with_capacity((self.text.len() - self.at) / 8), ..Reader::default() }
    }

    /// A number as JSON writes it, rounded to f64.
    fn number(&mut self, reader: &mut Reader) -> Option<f64> {
        let start = self.at;
        let negative = self.next_is(b'-');
        let mut digits = 0;
        let whole = self.digits(&mut digits);
        let leading_zero = whole > 1 && self.text[self.at - whole] == b'0';
        let places = if self.next_is(b'.') { self.eights(&mut digits) + self.digits(&mut digits) } else { 0 };
        if whole == 0 || leading_zero || self.text[self.at - 1] == b'.' {
            return None;
        }
        let exponent = self.next_is(b'e') || self.next_is(b'E');
        if exponent {
            let _ = self.next_is(b'+') || self.next_is(b'-');
            if self.digits(&mut 0) == 0 {
                return None;
            }
        } else if whole + places <= 19 {
            let value = if digits < 1 << f64::MANTISSA_DIGITS {
                // A quotient of numbers that f64 holds: rounded once.
                Some(digits as f64 / POWERS[places])
            } else if places == 0 {
                reader.integer(digits.into(), digits as f64);
                Some(digits as f64)
            } else {
                divided(digits, places)
            };
            if let Some(value) = value {
                return Some(value.copysign([1.0, -1.0][negative as usize]));
            }
        }
        self.long_number(start, exponent, places, reader)
    }

    /// The number that ends here, by the parser of the standard library.
    #[cold]
    fn long_number(&self, start: usize, exponent: bool, places: usize, reader: &mut Reader) -> Option<f64> {
        let text = std::str::from_utf8(&self.text[start..self.at]).ok()?;
        let value = in_range(text.parse::<f64>().ok()?).ok().filter(|y| y.is_finite())?;
        if !exponent && places == 0 {
            // What is in range fits.
            reader.integer(text.trim_start_matches('-').parse().ok()?, value);
        }
        let mantissa = text.split(['e', 'E']).next()?;
        if value == 0.0 && mantissa.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
            reader.lost = reader.lost.max(f64::from_bits(1));
        }
        Some(value)
    }

    /// Appends decimal digits to a number, modulo 2^64, as long as there are eight at once; how many there were.
    #[inline]
    fn eights(&mut self, number: &mut u64) -> usize {
        const EACH: u64 = 0x0101_0101_0101_0101;
        let start = self.at;
        // Most numbers are short: one look tells.
        while self.text.get(self.at + 7).is_some_and(u8::is_ascii_digit)
            && let Some(eight) = self.text[self.at..].first_chunk::<8>()
        {
            let bytes = u64::from_le_bytes(*eight);
            // A byte below '0' borrows, one above '9' carries into its highest bit.
            let other = bytes.wrapping_sub(EACH * b'0' as u64) | bytes.wrapping_add(EACH * (0x7f - b'9') as u64);
            if other & (EACH << 7) != 0 {
                break;
            }
            // Neighbours are joined: digits, pairs, fours.
            let pairs = (bytes & (EACH * 0xf)).wrapping_mul(10 << 8 | 1) >> 8 & 0x00ff_00ff_00ff_00ff;
            let fours = pairs.wrapping_mul(100 << 16 | 1) >> 16 & 0x0000_ffff_0000_ffff;
            let value = fours.wrapping_mul(10_000 << 32 | 1) >> 32;
            *number = number.wrapping_mul(100_000_000).wrapping_add(value);
            self.at += 8;
        }
        self.at - start
    }

    /// Appends decimal digits to a number, modulo 2^64; how many there were.
    #[inline]
    fn digits(&mut self, number: &mut u64) -> usize {
        let start = self.at;
        while let Some(digit @ b'0'..=b'9') = self.text.get(self.at) {
            *number = number.wrapping_mul(10).wrapping_add((digit - b'0') as u64);
            self.at += 1;
        }
        self.at - start
    }

    /// A natural number of few digits.
    #[inline]
    fn index(&mut self) -> Option<usize> {
        self.blank();
        let start = self.at;
        let mut number = 0;
        while let Some(digit @ b'0'..=b'9') = self.text.get(self.at) {
            number = 10 * number + (digit - b'0') as usize;
            self.at += 1;
            if self.at - start > 9 {
                return None;
            }
        }
        let leading_zero = self.at - start > 1 && self.text[start] == b'0';
        (self.at > start && !leading_zero).then_some(number)
    }

    /// A string without escapes: no name of ours has any.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|b| !b.is_ascii_lowercase() && *b != b'-')?;
        self.at += length;
        (rest[length] == b'"').then(|| self.at += 1)?;
        Some(&rest[..length])
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.blank();
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    /// Whether a comma follows, rather than the end.
    fn another(&mut self, end: u8) -> Option<bool> {
        match self.take(b',') {
            Some(()) => Some(true),
            None => self.take(end).map(|()| false),
        }
    }

    #[inline]
    fn next_is(&mut self, byte: u8) -> bool {
        let there = self.text.get(self.at) == Some(&byte);
        self.at += there as usize;
        there
    }

    #[inline]
    fn take(&mut self, byte: u8) -> Option<()> {
        self.blank();
        self.next_is(byte).then_some(())
    }

    #[inline]
    fn blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.get(self.at) {
            self.at += 1;
        }
    }
}

fn once(seen: &mut bool) -> Option<()> {
    (!std::mem::replace(seen, true)).then_some(())
}

fn put<T>(field: &mut Option<T>, value: T) -> Option<()> {
    field.replace(value).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Random(u64);

    impl Random {
        /// SplitMix64.
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn below(&mut self, bound: usize) -> usize {
            (self.next() % bound as u64) as usize
        }

        fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
            of[self.below(of.len())]
        }

        /// In one of the ways in which programs write numbers.
        fn number(&mut self) -> String {
            let uniform = (self.next() >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
            let power = self.below(70) as i32 - 35;
            match self.below(12) {
                0 => "null".into(),
                1 => self.pick(&["0", "-0", "0.0", "-0.0e5", "1", "-1", "0.000000000000000000000001"]).into(),
                2 => format!("{}", self.next() as i64 >> self.below(64)),
                3 => format!("{}", self.next() >> self.below(64)),
                4 => format!("{:e}", uniform * 10f64.powi(power)),
                5 => format!("{:E}", uniform * 10f64.powi(power)),
                6 => format!("{}e+{}", self.below(100), self.below(36)),
                7 => format!("{:.3}", uniform * 10.0),
                8 => format!("{}", (uniform * 8.0) as f32),
                9 => format!("{:.25}", uniform),
                // The middle between two f32, or beside it: here rounding twice would show.
                10 => {
                    let middle =
                        f64::from_bits((((uniform * 8.0) as f32 as f64).to_bits() & !0x1fff_ffff) | 0x1000_0000);
                    format!("{:.*}", 14 + self.below(30), f64::from_bits(middle.to_bits() + self.next() % 5 - 2))
                }
                _ => format!("{}", uniform * 8.0),
            }
        }

        fn list(&mut self, length: usize, blank: &str, mut item: impl FnMut(&mut Self) -> String) -> String {
            let items: Vec<String> = (0..length).map(|_| item(self)).collect();
            format!("[{blank}{}{blank}]", items.join(&format!(",{blank}")))
        }

        /// A well-formed line, if not always a problem that makes sense.
        fn line(&mut self) -> String {
            let blank = self.pick(&["", " ", "", "\t "]);
            let (n, k) = (self.below(6), self.below(4));
            let table = |r: &mut Self| r.list(n, blank, |r| r.list(k, blank, Self::number));
            let edges = |r: &mut Self, matrix: bool| {
                r.list(n, blank, |r| {
                    let weight = if matrix { r.list(k, blank, |r| r.list(k, blank, Self::number)) } else { r.number() };
                    format!("[{},{blank}{}{blank},{weight}]", r.below(1200), r.below(12))
                })
            };
            let (kind, _) = Kind::NAMES[self.below(Kind::NAMES.len())];
            let mut fields = vec![format!("\"structure\"{blank}:{blank}\"{kind}\"")];
            for _ in 0..self.below(4) {
                let field = match self.below(10) {
                    0 => format!("\"unary\":{}", self.list(n, blank, Self::number)),
                    1 => format!("\"unary\":{blank}{}", table(self)),
                    2 => format!("\"pairs\":{blank}{}", edges(self, false)),
                    3 => format!("\"edges\":{}", edges(self, true)),
                    4 => format!("\"scores\"{blank}:{}", table(self)),
                    5 => format!("\"transition\":{}", self.list(n, blank, table)),
                    6 => format!("\"{}\":{}", self.pick(&["k", "root", "nodes"]), self.below(1 << 20)),
                    7 => format!("\"weights\":{blank}{}", self.list(n, blank, Self::number)),
                    _ => format!("\"sum\":{blank}{}", self.pick(&["true", "false"])),
                };
                let name = field.split(':').next().unwrap().trim().to_owned();
                if !fields.iter().any(|f| f.starts_with(&name)) {
                    let at = self.below(fields.len() + 1);
                    fields.insert(at, field);
                }
            }
            format!("{{{blank}{}{blank}}}", fields.join(&format!("{blank},{blank}")))
        }
    }

    /// What the quick reader takes, the plain one reads alike; `-0` and `0` are told apart by the text.
    fn check(line: &[u8]) -> bool {
        let quick = read(line);
        if let Some(quick) = &quick {
            let plain: Problem = serde_json::from_slice(line)
                .unwrap_or_else(|e| panic!("{:?} is refused: {e}", String::from_utf8_lossy(line)));
            // What is lost of the longest integers and the smallest numbers, only this reader knows.
            let show = |problem: &Problem| {
                let text = format!("{problem:?}");
                let parts = text.split("lost: ").enumerate();
                let numbers = parts.map(|(i, part)| if i == 0 { part } else { &part[part.find(' ').unwrap_or(0)..] });
                numbers.collect::<String>()
            };
            assert_eq!(show(quick), show(&plain), "{}", String::from_utf8_lossy(line));
        }
        quick.is_some()
    }

    #[test]
    fn agrees_with_the_plain_reader() {
        let mut random = Random(1);
        for case in 0..20_000 {
            let line = random.line();
            let plain = serde_json::from_str::<Problem>(&line);
            assert_eq!(check(line.as_bytes()), plain.is_ok(), "{case}: {line}: {plain:?}");
        }
    }

    #[test]
    fn takes_nothing_that_the_plain_reader_refuses() {
        const BYTES: &[u8] = b"0123456789.-+eE,:[]{}\"\\ \nntr\0\xff";
        let mut random = Random(2);
        let mut taken = 0;
        for _ in 0..50_000 {
            let mut line = random.line().into_bytes();
            for _ in 0..1 + random.below(2) {
                let at = random.below(line.len());
                let byte = BYTES[random.below(BYTES.len())];
                match random.below(4) {
                    0 => line[at] = byte,
                    1 => line.insert(at, byte),
                    2 => drop(line.remove(at)),
                    _ => line.truncate(at),
                }
                if line.is_empty() {
                    break;
                }
            }
            taken += check(&line) as usize;
        }
        assert!(taken > 1000, "the changes leave too few lines intact: {taken}");
    }

    #[test]
    fn takes_the_usual_and_leaves_the_odd() {
        for line in [
            r#"{"structure":"pairwise","unary":[1,-2.5,null],"pairs":[[0,1,1e-3],[1,2,-0.1]]}"#,
            " { \"sum\" : true , \"structure\" : \"chain\" , \"unary\" : [ ] , \"transition\" : [ ] } \r\n",
        ] {
            assert!(check(line.as_bytes()), "{line}");
        }
        for line in [
            "",
            "{",
            "{}",
            r#"{"structure":"pairwise","unary":[1],"unary":[1],"pairs":[]}"#,
            r#"{"structure":"pairwise","structure":"pairwise"}"#,
            r#"{"structure":"pairwise","pairs":[[00,1,1]]}"#,
            r#"{"structure":"pairwise","pairs":[[0.0,1,1]]}"#,
            r#"{"structure":"pairwise","unary":[.5]}"#,
            r#"{"structure":"pairwise","unary":[5.]}"#,
            r#"{"structure":"pairwise","unary":[5.e1]}"#,
            r#"{"structure":"pairwise","unary":[-]}"#,
            r#"{"structure":"pairwise","unary":[1e]}"#,
            r#"{"structure":"pairwise","unary":[01]}"#,
            r#"{"structure":"pairwise","unary":[1e39]}"#,
            r#"{"structure":"pairwise","unary":[1,]}"#,
            r#"{"structure":"pairwise","unary":[1]]}"#,
            r#"{"structure":"pairwise","unary":[1]}}"#,
            r#"{"structure":"chain","unary":[[1],[1,2]]}"#,
            r#"{"structure":"knapsack"}"#,
            r#"{"structure":"pairwise","unary":[[[[[[[[1]]]]]]]]}"#,
        ] {
            assert!(!check(line.as_bytes()), "{line}");
        }
    }
}

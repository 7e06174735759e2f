//! Binary images as lists of their ones.
//!
//! Pixels are taken in pairs: a pair that is not empty is one *code*, `3 pair + 0` for its left pixel alone, `+ 1` for
//! its right one, `+ 2` for both. With the sum of two rows of weights kept beside them, an image of MNIST costs 64
//! additions of rows in the first layer instead of 784 products, and even a full image costs half of them.

/// The images of a split, or of a batch, as lists.
#[derive(Debug, Clone, Default)]
pub struct Bits {
    pixels: usize,
    /// Image i has the ones `ones[starts[i * blocks + b]..starts[i * blocks + b + 1]]` in block b of its pixels.
    starts: Vec<u32>,
    ones: Vec<u16>,
    /// Image i has the codes `codes[cuts[i][0]..cuts[i + 1][0]]`; those of the first half of the pairs end at
    /// `cuts[i][1]`. Both halves are filled up to a multiple of four with a code of no pair.
    cuts: Vec<[u32; 2]>,
    codes: Vec<u16>,
}

/// Pixels in a block.
pub const BLOCK: usize = 64;

/// Pairs of pixels.
pub fn pairs(pixels: usize) -> usize {
    pixels.div_ceil(2)
}

/// The first code of a half of the pairs: stored codes count from there.
fn origin(pixels: usize, half: usize) -> u16 {
    3 * (half * (pairs(pixels) / 2)) as u16
}

/// The code of no pair in a half, counted from its first: the one behind its last.
fn none(pixels: usize, half: usize) -> u16 {
    3 * [pairs(pixels) / 2, pairs(pixels) - pairs(pixels) / 2][half] as u16
}

impl Bits {
    /// The largest number of pixels: codes are 16 bits wide.
    pub const MAX_PIXELS: usize = ((1 << 16) / 3 - 1) * 2;

    /// Images `[count, pixels]` of zeros and ones; `None` if there is another value or an image is too large.
    pub fn new<T: Copy + Into<f32>>(images: &[T], pixels: usize) -> Option<Self> {
        if pixels == 0 || pixels > Self::MAX_PIXELS {
            return None;
        }
        let mut bits = Bits { pixels, ..Bits::default() };
        for image in images.chunks_exact(pixels) {
            bits.push(image)?;
        }
        bits.close();
        Some(bits)
    }

    fn push<T: Copy + Into<f32>>(&mut self, image: &[T]) -> Option<()> {
        let first = self.codes.len() as u32;
        let mut middle = first;
        for (pair, both) in image.chunks(2).enumerate() {
            if (2 * pair).is_multiple_of(BLOCK) {
                self.starts.push(self.ones.len() as u32);
            }
            if pair == pairs(self.pixels) / 2 {
                self.fill_up(first, none(self.pixels, 0));
                middle = self.codes.len() as u32;
            }
            let mut kind = 0;
            for (side, x) in both.iter().enumerate() {
                let x: f32 = (*x).into();
                if x == 1.0 {
                    kind += 1 + side as u16;
                    self.ones.push((2 * pair + side) as u16);
                } else if x != 0.0 {
                    return None;
                }
            }
            if kind > 0 {
                let half = (pair >= pairs(self.pixels) / 2) as usize;
                self.codes.push(3 * pair as u16 + kind - 1 - origin(self.pixels, half));
            }
        }
        self.fill_up(middle, none(self.pixels, 1));
        self.cuts.push([first, middle]);
        Some(())
    }

    fn fill_up(&mut self, first: u32, code: u16) {
        let missing = (self.codes.len() - first as usize).wrapping_neg() % 4;
        self.codes.extend(std::iter::repeat_n(code, missing));
    }

    fn close(&mut self) {
        self.starts.push(self.ones.len() as u32);
        self.cuts.push([self.codes.len() as u32; 2]);
    }

    /// Number of images.
    pub fn count(&self) -> usize {
        self.cuts.len().saturating_sub(1)
    }

    /// Pixels of an image.
    pub fn pixels(&self) -> usize {
        self.pixels
    }

    /// The ones of an image among the pixels `64 block..64 (block + 1)`, in ascending order.
    #[inline(always)]
    pub fn ones(&self, image: usize, block: usize) -> &[u16] {
        let i = image * self.pixels.div_ceil(BLOCK) + block;
        &self.ones[self.starts[i] as usize..self.starts[i + 1] as usize]
    }

    /// All ones of an image in ascending order.
    #[inline(always)]
    pub fn all_ones(&self, image: usize) -> &[u16] {
        let blocks = self.pixels.div_ceil(BLOCK);
        &self.ones[self.starts[image * blocks] as usize..self.starts[(image + 1) * blocks] as usize]
    }

    /// The codes of an image, in fours: in the first half of its pairs, and in the second, counted from the first
    /// code of each. Among the last of each may be the one behind the last of the half, which stands for nothing.
    #[inline(always)]
    pub fn codes(&self, image: usize) -> [&[[u16; 4]]; 2] {
        let ([first, middle], [end, _]) = (self.cuts[image], self.cuts[image + 1]);
        let fours = |from: u32, to: u32| self.codes[from as usize..to as usize].as_chunks().0;
        [fours(first, middle), fours(middle, end)]
    }
}

/// For every code, the places in the batch of the images that have it.
#[derive(Debug)]
pub struct Members {
    batch: usize,
    counts: Vec<u16>,
    places: Vec<u16>,
}

impl Members {
    pub fn new(pixels: usize, batch: usize) -> Self {
        let codes = 3 * pairs(pixels);
        Members { batch, counts: vec![0; codes], places: vec![0; codes * batch] }
    }

    /// The lists of a batch, at most as large as the memory was made for.
    pub fn fill(&mut self, bits: &Bits, batch: &[u32]) {
        self.counts.fill(0);
        for (place, image) in batch.iter().enumerate() {
            for (half, codes) in bits.codes(*image as usize).into_iter().enumerate() {
                let none = none(bits.pixels, half);
                for code in codes.as_flattened().iter().filter(|code| **code != none) {
                    let code = (*code + origin(bits.pixels, half)) as usize;
                    let count = &mut self.counts[code];
                    self.places[code * self.batch + *count as usize] = place as u16;
                    *count += 1;
                }
            }
        }
    }

    /// Places of the images that have a code.
    #[inline(always)]
    pub fn of(&self, code: usize) -> &[u16] {
        &self.places[code * self.batch..][..self.counts[code] as usize]
    }

    /// Whether any image has a pixel of a pair.
    pub fn any(&self, pair: usize) -> bool {
        self.counts[3 * pair..3 * pair + 3].iter().any(|c| *c > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_hold_what_the_images_do() {
        for pixels in [1, 2, 7, 64, 131] {
            let images: Vec<u8> = (0..5 * pixels).map(|i| (i * i % 7 < 3) as u8).collect();
            let bits = Bits::new(&images, pixels).unwrap();
            assert_eq!((bits.count(), bits.pixels()), (5, pixels));
            for (i, image) in images.chunks(pixels).enumerate() {
                let ones: Vec<u16> = (0..pixels as u16).filter(|p| image[*p as usize] == 1).collect();
                let blocks = (0..pixels.div_ceil(BLOCK)).flat_map(|b| bits.ones(i, b)).copied();
                assert_eq!(blocks.collect::<Vec<_>>(), ones);
                let [a, b] = [0, 1].map(|half| {
                    let codes = bits.codes(i)[half].as_flattened().iter().copied();
                    let real = codes.filter(|c| *c != none(pixels, half));
                    real.map(|c| c + origin(pixels, half)).collect::<Vec<_>>()
                });
                let decode = |c: &u16| match c % 3 {
                    0 => vec![c / 3 * 2],
                    1 => vec![c / 3 * 2 + 1],
                    _ => vec![c / 3 * 2, c / 3 * 2 + 1],
                };
                assert_eq!(a.iter().chain(&b).flat_map(decode).collect::<Vec<_>>(), ones);
                assert!(a.iter().all(|c| (*c as usize) < 3 * (pairs(pixels) / 2)));
                assert!(b.iter().all(|c| *c as usize >= 3 * (pairs(pixels) / 2)));
            }
            let mut members = Members::new(pixels, 4);
            for batch in [&[3u32, 0, 3, 1][..], &[2]] {
                members.fill(&bits, batch);
                for p in 0..pixels {
                    let mut found = [members.of(p / 2 * 3 + p % 2), members.of(p / 2 * 3 + 2)].concat();
                    found.sort_unstable();
                    let has = |place: &u16| images[batch[*place as usize] as usize * pixels + p] == 1;
                    assert_eq!(found, (0..batch.len() as u16).filter(has).collect::<Vec<_>>());
                }
            }
        }
        assert!(Bits::new(&[0.5f32, 1.0], 2).is_none() && Bits::new(&[0u8], 0).is_none());
    }
}

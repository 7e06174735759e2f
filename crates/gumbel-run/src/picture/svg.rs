//! A picture of shapes, written as SVG.

use super::{Anchor, Colour, LETTER, Surface, WHITE};
use crate::Result;
use crate::error::escaped;
use crate::store::write_atomic;
use std::fmt::Write;
use std::path::Path;

/// A document in the making.
pub(super) struct Svg {
    text: String,
}

impl Svg {
    /// A white picture of `size` units, each `scale` pixels large.
    pub fn new(size: (usize, usize), scale: usize) -> Self {
        let (width, height) = size;
        let mut svg = Svg { text: String::new() };
        svg.add(format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{}" viewBox="0 0 {width} {height}">"#,
            width * scale,
            height * scale
        ));
        svg.rectangle((0, 0), size, WHITE);
        svg
    }

    fn add(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a string takes all text");
    }

    /// A line through points; `dash` is empty or lengths of strokes and gaps.
    pub fn line(&mut self, points: &[(f64, f64)], colour: Colour, width: f64, dash: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.2},{y:.2}")).collect();
        let dash = if dash.is_empty() { String::new() } else { format!(r#" stroke-dasharray="{dash}""#) };
        self.add(format_args!(
            r#"<polyline fill="none" stroke="{}" stroke-width="{width}"{dash} points="{}"/>"#,
            hex(colour),
            points.join(" ")
        ));
    }

    /// A disc.
    pub fn disc(&mut self, (x, y): (f64, f64), radius: f64, colour: Colour) {
        self.add(format_args!(r#"<circle cx="{x:.2}" cy="{y:.2}" r="{radius}" fill="{}"/>"#, hex(colour)));
    }

    /// Text on its base line, in letters of `size`; `upwards` turns it to the left.
    pub fn write_text(
        &mut self,
        (x, y): (f64, f64),
        size: f64,
        anchor: Anchor,
        upwards: bool,
        family: &str,
        text: &str,
    ) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let turn = if upwards { format!(r#" transform="rotate(-90 {x:.2} {y:.2})""#) } else { String::new() };
        let font = format!(r#"font-family="{family}" font-size="{size}" text-anchor="{anchor}""#);
        let text = character_data(text);
        self.add(format_args!(r#"<text x="{x:.2}" y="{y:.2}" {font}{turn}>{text}</text>"#));
    }

    /// The document.
    pub fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }

    /// Writes the file.
    pub fn write(self, path: &Path) -> Result<()> {
        write_atomic(path, self.finish().as_bytes())
    }
}

fn hex([r, g, b]: Colour) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Text as XML allows it: most control characters have no place in a document, not even as entities.
pub(crate) fn character_data(text: &str) -> String {
    let text = escaped(text);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&apos;")
}

impl Surface for Svg {
    fn rectangle(&mut self, (x, y): (usize, usize), (width, height): (usize, usize), colour: Colour) {
        self.add(format_args!(r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{}"/>"#, hex(colour)));
    }

    fn text(&mut self, (x, y): (usize, usize), anchor: Anchor, upwards: bool, text: &str) {
        // Monospaced letters are about 0.6 of their size wide: those of the pixels.
        let size = LETTER.0 as f64 / 0.6;
        let base = |edge: usize| (edge + LETTER.1 - 1) as f64;
        let at = if upwards { (base(x), y as f64) } else { (x as f64, base(y)) };
        self.write_text(at, size, anchor, upwards, "monospace", text);
    }
}

/// Checks that a text is a well-formed document as far as this module can break it: characters, entities, nesting.
#[cfg(test)]
pub(super) fn assert_xml(text: &str) {
    assert!(text.chars().all(|c| c == '\n' || !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')));
    let mut open = vec![];
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        assert!(!before.contains('>'), "{before}");
        for part in before.split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;", "quot;", "apos;"].iter().any(|e| part.starts_with(e)), "{part}");
        }
        let (tag, after) = after.split_once('>').unwrap();
        assert!(tag.matches('"').count() % 2 == 0 && !tag.contains('<'), "{tag}");
        let name = tag.split([' ', '/']).find(|n| !n.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        rest = after;
    }
    assert!(open.is_empty() && rest.trim().is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by a hostile tester: control characters of a folder's name made the document invalid.
    #[test]
    fn any_text_is_valid_xml() {
        let mut svg = Svg::new((10, 10), 2);
        let all: String = (0..0x3000).chain(0xfff0..0x10010).filter_map(char::from_u32).collect();
        svg.write_text((0.0, 0.0), 10.0, Anchor::Start, false, "monospace", &all);
        svg.text((1, 2), Anchor::End, true, "a\u{1b}[31m\0<b> & \"c\"");
        let text = svg.finish();
        assert_xml(&text);
        assert!(text.contains(r"a\u{1b}[31m\u{0}&lt;b&gt; &amp; &quot;c&quot;"), "{text}");
    }
}

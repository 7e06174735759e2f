//! The documents: links lead somewhere, the reference is in step with the registry, every page is in the book.

mod common;

use common::succeeds;
use gumbel_run::config::KEYS;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All Markdown of the repository, but for what is not of it: `git` knows, where there is one.
fn pages(root: &Path) -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.md"])
        .current_dir(root)
        .output();
    if let Ok(listed) = listed
        && listed.status.success()
    {
        let names = String::from_utf8(listed.stdout).unwrap();
        let names = names.split('\0').filter(|n| !n.is_empty()).map(|n| root.join(n));
        return names.filter(|path| path.exists()).collect();
    }
    let mut found = vec![];
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && !["target", "runs"].contains(&&*name) {
                folders.push(path);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found
}

/// What a page refers to, with lines, and the anchors of its headings.
struct Page {
    links: Vec<(usize, String)>,
    anchors: HashSet<String>,
}

/// As forges make it of a heading: lower case, no punctuation, hyphens for spaces.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.replace(' ', "-")
}

/// The values of an attribute in HTML.
fn attributes<'a>(html: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    html.split(name).skip(1).filter_map(|rest| rest.strip_prefix("=\"")?.split('"').next())
}

fn read(text: &str) -> Page {
    let mut page = Page { links: vec![], anchors: HashSet::new() };
    let (mut heading, mut seen) = (None::<String>, HashMap::<String, usize>::new());
    for (event, at) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        let line = 1 + text[..at.start].matches('\n').count();
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push((line, dest_url.to_string()));
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(part) | Event::Code(part) => {
                if let Some(heading) = &mut heading {
                    *heading += &part;
                }
            }
            Event::Html(html) | Event::InlineHtml(html) => {
                let found = ["href", "src"].into_iter().flat_map(|name| attributes(&html, name));
                page.links.extend(found.map(|l| (line, l.to_string())));
                page.anchors.extend(attributes(&html, "id").map(str::to_string));
            }
            Event::End(TagEnd::Heading(_)) => {
                let name = anchor(&heading.take().unwrap_or_default());
                let times = seen.entry(name.clone()).or_default();
                page.anchors.insert(if *times == 0 { name } else { format!("{name}-{times}") });
                *times += 1;
            }
            _ => {}
        }
    }
    page
}

/// The path without `..`, if it stays below the root.
fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut parts = vec![];
    for part in path.strip_prefix(root).ok()?.components() {
        match part {
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir => {}
            part => parts.push(part),
        }
    }
    Some(root.join(parts.iter().collect::<PathBuf>()))
}

/// Links that lead nowhere, one to a line.
fn broken(root: &Path, pages: &[PathBuf]) -> Vec<String> {
    let read = |path: &PathBuf| (path.clone(), read(&fs::read_to_string(path).unwrap()));
    let pages: HashMap<PathBuf, Page> = pages.iter().map(read).collect();
    let mut wrong = vec![];
    for (path, page) in &pages {
        for (line, link) in &page.links {
            if link.contains("://") || link.starts_with("mailto:") {
                continue; // the rest of the world is not ours to check
            }
            let (file, anchor) = link.split_once('#').map_or((&link[..], None), |(file, anchor)| (file, Some(anchor)));
            let target = match file {
                "" => Some(path.clone()),
                _ => inside(root, &path.parent().unwrap().join(file)),
            };
            let why = match (&target, anchor) {
                (None, _) => "leads out of the repository",
                (Some(target), _) if !target.exists() => "there is no such file",
                (Some(target), Some(anchor)) => match pages.get(target) {
                    Some(page) if !page.anchors.contains(anchor) => "there is no such heading",
                    _ => continue,
                },
                _ => continue,
            };
            let path = path.strip_prefix(root).unwrap().display();
            wrong.push(format!("{path}:{line}: {link}: {why}"));
        }
    }
    wrong.sort();
    wrong
}

#[test]
fn links_lead_somewhere() {
    let root = root();
    let pages = pages(&root);
    assert!(pages.len() > 15, "{pages:?}");
    let wrong = broken(&root, &pages);
    assert!(wrong.is_empty(), "broken links:\n{}", wrong.join("\n"));
}

#[test]
fn a_broken_link_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir(root.join("sub")).unwrap();
    let one = "# A heading: `code`, and *more*!\n\n\
               [a](sub/two.md#twice-1) [b](#a-heading-code-and-more) ![c](pic.png)\n\
               [d](sub) <img src=\"pic.png\"> [e][f] `[no](link)`\n\n    [no](link)\n\n[f]: sub/two.md\n\
               [g](https://example.com/nowhere)\n";
    fs::write(root.join("one.md"), one).unwrap();
    fs::write(root.join("sub/two.md"), "# Twice\n\n# Twice\n\n[up](../one.md)\n").unwrap();
    fs::write(root.join("pic.png"), "").unwrap();
    let pages = [root.join("one.md"), root.join("sub/two.md")];
    assert_eq!(broken(&root, &pages), Vec::<String>::new());
    for (good, bad, why) in [
        ("sub/two.md#twice-1", "sub/two.md#twice-2", "one.md:3: sub/two.md#twice-2: there is no such heading"),
        ("#a-heading-code", "#the-heading-code", "no such heading"),
        ("![c](pic.png)", "![c](pic.svg)", "one.md:3: pic.svg: there is no such file"),
        ("src=\"pic.png\"", "src=\"pics.png\"", "one.md:4: pics.png: there is no such file"),
        ("[f]: sub/two.md", "[f]: two.md", "one.md:4: two.md: there is no such file"),
        ("[d](sub)", "[d](../sub)", "../sub: leads out of the repository"),
    ] {
        assert!(one.contains(good));
        fs::write(root.join("one.md"), one.replace(good, bad)).unwrap();
        let wrong = broken(&root, &pages);
        assert!(wrong.len() == 1 && wrong[0].contains(why), "{bad}: {wrong:?}");
    }
}

/// `docs/reference.md`, from what the program lists.
fn reference() -> String {
    let mut page = String::from(
        "# Reference: what there is, with its settings\n\nMade from the registry by `GUMBEL_WRITE=1 cargo test -p \
         gumbel-cli --test documents`; `gumbel list KIND`, with `--json` for programs, says the same. A setting is a \
         flag of `gumbel train` and a key of a configuration file.\n",
    );
    page.push_str("\n## Every run\n\n| setting | default | what it is | range |\n|---|---|---|---|\n");
    for setting in KEYS {
        let default = if setting.default.is_empty() { "(nothing)".into() } else { format!("`{}`", setting.default) };
        let cell = |text: &str| text.replace('|', "\\|");
        let (help, range) = (cell(setting.help), cell(&setting.range()));
        writeln!(page, "| `{}` | {default} | {help} | {range} |", setting.name).unwrap();
    }
    for (kind, title) in [
        ("estimators", "Estimators"),
        ("latents", "Latents"),
        ("datasets", "Data sets"),
        ("models", "Models"),
        ("likelihoods", "Likelihoods"),
    ] {
        write!(page, "\n## {title}\n").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_gumbel")).args(["list", kind, "--json"]).output().unwrap();
        for line in succeeds(&output).lines() {
            let entry: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| entry[name].as_str().unwrap_or_default().replace('|', "\\|");
            let help = text("help");
            let (first, rest) = help.split_at(help.chars().next().map_or(0, char::len_utf8));
            write!(page, "\n### `{}`\n\n{}{rest}.", text("name"), first.to_uppercase()).unwrap();
            if !text("form").is_empty() {
                write!(page, " Written `{}`.", text("form").replace(" or ", "` or `")).unwrap();
            }
            page.push('\n');
            if kind == "estimators" {
                let facts = [
                    ("asks of the latent", "latent"),
                    ("decoder passes without gradient", "passes_without_gradient"),
                    ("with gradient", "passes_with_gradient"),
                    ("bias", "bias"),
                    ("variance", "variance"),
                ];
                page.push('\n');
                facts.iter().for_each(|(name, key)| writeln!(page, "- {name}: {}", text(key)).unwrap());
            }
            let settings = entry["settings"].as_array().unwrap();
            if settings.is_empty() {
                continue;
            }
            page.push_str("\n| setting | default | what it is | range |\n|---|---|---|---|\n");
            for setting in settings {
                let cell = |name: &str| setting[name].as_str().unwrap().replace('|', "\\|");
                let default = match cell("default") {
                    empty if empty.is_empty() => "(nothing)".into(),
                    default => format!("`{default}`"),
                };
                writeln!(page, "| `{}` | {default} | {} | {} |", cell("name"), cell("help"), cell("range")).unwrap();
            }
        }
    }
    page
}

#[test]
fn the_reference_is_in_step_with_the_registry() {
    let path = root().join("docs/reference.md");
    let made = reference();
    if std::env::var_os("GUMBEL_WRITE").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let first = made.lines().zip(found.lines()).find(|(made, found)| made != found);
    assert!(made == found, "docs/reference.md is old: GUMBEL_WRITE=1 makes it anew; first difference: {first:?}");
}

#[test]
fn every_page_is_in_the_book() {
    let docs = root().join("docs");
    let summary = docs.join("SUMMARY.md");
    let book = read(&fs::read_to_string(&summary).unwrap());
    let listed: HashSet<PathBuf> = book.links.iter().map(|(_, link)| docs.join(link)).collect();
    for page in pages(&root()).iter().filter(|p| p.starts_with(&docs) && **p != summary) {
        assert!(listed.contains(page), "{} is not in docs/SUMMARY.md", page.display());
    }
}

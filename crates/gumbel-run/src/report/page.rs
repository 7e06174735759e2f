//! The page.

use super::curves::{SPLITS, legend, panels};
use super::figures::{At, Figure, Look, MEASURES, best_of, columns, is_estimate, lines, source};
use super::{Picture, Run, command};
use crate::collect::differing;
use crate::config::Given;
use crate::picture::character_data as escape;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::collections::BTreeSet;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// Nothing is loaded, not even if a text should get past its escaping.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
/// Lines of the metrics of a run at most, about.
const LINES: usize = 60;

/// The whole page; there is at least one run.
pub(super) fn page(runs: &[Run], title: Option<&str>) -> String {
    let title = escape(&title.map_or_else(
        || match runs {
            [run] => run.name.clone(),
            runs => format!("{} runs", runs.len()),
        },
        String::from,
    ));
    let needed: Vec<Given> = runs.iter().map(|run| command::needed(&run.config)).collect();
    let sections: String = runs.iter().enumerate().map(|(i, run)| section(i, run, &needed[i])).collect();
    let panels = panels(runs);
    let curves = match panels.is_empty() {
        true => "<p>No metrics of the splits test and valid.</p>\n".to_string(),
        false => {
            let names = runs.iter().map(|run| run.name.as_str()).enumerate();
            format!("{}<div class=\"panels\">\n{panels}</div>\n", legend(names, &SPLITS))
        }
    };
    let contents: String = runs.iter().enumerate().map(|(i, run)| format!("<li>{}</li>\n", link(i, run))).collect();
    let header = format!(
        "{}<nav aria-label=\"Contents\">\n<ul>\n<li><a href=\"#runs\">Runs</a></li>\n<li><a \
         href=\"#curves\">Curves</a></li>\n{contents}</ul>\n</nav>\n",
        about(runs)
    );
    let table = table(runs, &needed);
    let main = format!(
        "<section id=\"runs\">\n<h2>Runs</h2>\n{table}</section>\n<section id=\"curves\">\n<h2>Curves</h2>\n\
         {curves}</section>\n{sections}"
    );
    frame(&title, &header, &main)
}

/// A page with nothing beside itself; title, header and content are markup.
pub(crate) fn frame(title: &str, header: &str, main: &str) -> String {
    format!(
        r##"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<link rel="icon" href="data:,"/>
<title>{title}</title>
<style>
{STYLE}</style>
</head>
<body>
<header>
<h1><bdi>{title}</bdi></h1>
{header}</header>
<main>
{main}</main>
<footer>
<p>Written by gumbel {version}. Losses are in nats per image. Every figure names its file in <code>data-source</code>,
with all its digits in <code>data-value</code>.</p>
</footer>
<script>
{SCRIPT}</script>
</body>
</html>
"##,
        version = env!("CARGO_PKG_VERSION"),
    )
}

fn link(index: usize, run: &Run) -> String {
    format!("<a href=\"#run-{}\"><bdi>{}</bdi></a>", index + 1, escape(&run.name))
}

/// What all runs share: how many, by which program, trained on what.
fn about(runs: &[Run]) -> String {
    let finished = runs.iter().filter(|run| run.summary.is_some()).count();
    let count = match (runs.len(), finished) {
        (1, 1) => "One finished run".to_string(),
        (1, _) => "One unfinished run".to_string(),
        (all, finished) if all == finished => format!("{all} runs"),
        (all, finished) => format!("{all} runs, {} of them unfinished", all - finished),
    };
    let programs = runs.iter().filter_map(|run| run.summary.as_ref());
    let programs: BTreeSet<String> = programs.map(|s| format!("gumbel {}, commit {}", s.version, s.commit)).collect();
    let programs: Vec<String> = programs.iter().map(|program| escape(program)).collect();
    let by = if programs.is_empty() { String::new() } else { format!(" Made by {}.", programs.join(" and ")) };
    let mut text = format!("<p>{count}.{by}</p>\n");
    let shared = ["dataset", "latent", "estimator", "epochs"].into_iter().filter_map(|key| {
        let first = runs[0].config.settings().get(key)?;
        let same = runs.iter().all(|run| run.config.settings().get(key) == Some(first));
        same.then(|| format!("{key} {}", escape(&first.to_string())))
    });
    let shared: Vec<String> = shared.collect();
    if !shared.is_empty() {
        text += &format!("<p>{}{}.</p>\n", if runs.len() > 1 { "All with " } else { "" }, shared.join(", "));
    }
    text
}

/// A figure as the content of a cell, or of another element.
fn attributes(figure: &Figure) -> String {
    format!("data-value=\"{:?}\" data-source=\"{}\"", figure.value, escape(&figure.source))
}

/// The table of all runs.
fn table(runs: &[Run], needed: &[Given]) -> String {
    let mut keys = differing(&runs.iter().map(|run| &run.config).collect::<Vec<_>>());
    let all = keys.len();
    // What the program has chosen for the others would hide the figures.
    keys.retain(|key| needed.iter().any(|given| given.contains_key(key)));
    let follow = keys.len() < all;
    if runs.iter().any(|run| run.config.seed() != runs[0].config.seed()) {
        keys.push("seed".into());
    }
    let columns = columns(runs);
    let best = best_of(runs, &columns);
    let count = |at| columns.iter().filter(|column| column.at == at).count();
    let mut number = 0..;
    let mut sorted = |title: &str, rest: &str| {
        let number: usize = number.next().expect("there is always another number");
        format!("<th scope=\"col\" data-column=\"{number}\"{rest}>{title}</th>")
    };
    let tall = " rowspan=\"2\"";
    let mut first = sorted("run", tall);
    keys.iter().for_each(|key| first += &sorted(&escape(key), tall));
    // Numbers of columns go from left to right, the two rows of the head from top to bottom.
    let (mut second, mut last) = (String::new(), String::new());
    for column in &columns {
        match column.at {
            At::Run => last += &sorted(column.title, " rowspan=\"2\" class=\"number\""),
            _ => second += &sorted(column.title, " class=\"number\""),
        }
    }
    for (at, title) in [(At::Best, "test, best epoch"), (At::Last, "test, last epoch")] {
        if count(at) > 0 {
            first += &format!("<th scope=\"colgroup\" colspan=\"{}\" class=\"group\">{title}</th>", count(at));
        }
    }
    let mut body = String::new();
    for (i, run) in runs.iter().enumerate() {
        let state = if run.summary.is_some() { String::new() } else { format!("<br/>{}", state(run)) };
        body += &format!("<tr><th scope=\"row\" data-sort=\"{}\">{}{state}</th>", escape(&run.name), link(i, run));
        for key in &keys {
            let value = run.config.settings().get(key).map(|value| escape(&value.to_string()));
            body += &format!("<td>{}</td>", value.unwrap_or("-".into()));
        }
        for (column, best) in columns.iter().zip(&best[i]) {
            let about = if column.field == "bound" && is_estimate(run) { "≈\u{a0}" } else { "" };
            body += &match column.of(run) {
                Some(figure) => {
                    let text = format!("{about}{}", column.look.text(figure.value));
                    let text = if *best { format!("<strong>{text}</strong>") } else { text };
                    format!("<td class=\"number\" {}>{text}</td>", attributes(&figure))
                }
                None => "<td class=\"number\">-</td>".into(),
            };
        }
        body += "</tr>\n";
    }
    let mut notes = vec!["The best epoch is that with the least validation bound."];
    if runs.len() > 1 {
        notes.push(
            "In bold is the best of the finished runs on the same images whose bounds are of one kind: the largest \
             accuracy, the least of the others; of the KL there is no best.",
        );
    }
    if follow {
        notes.push("Settings that differ because of those shown are listed with each run.");
    }
    if runs.iter().any(is_estimate) {
        notes.push("≈ is an estimate.");
    }
    if runs.iter().any(|run| run.summary.is_none()) {
        notes.push("What is unfinished is shown as far as it has come.");
    }
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Table of runs\">\n<table \
         class=\"sortable\">\n<thead>\n<tr>{first}{last}</tr>\n<tr>{second}</tr>\n</thead>\n\
         <tbody>\n{body}</tbody>\n</table>\n</div>\n<p class=\"note\">{}</p>\n",
        notes.join(" ")
    )
}

fn state(run: &Run) -> String {
    let (epoch, epochs) = (run.epoch(), run.config.whole("epochs"));
    match run.summary {
        Some(_) => format!("<span class=\"state\">finished, {epochs} epochs</span>"),
        None => format!("<span class=\"state unfinished\">unfinished, epoch {epoch} of {epochs}</span>"),
    }
}

/// All about a run.
fn section(index: usize, run: &Run, needed: &Given) -> String {
    let mut text = format!(
        "<section id=\"run-{}\" class=\"run\">\n<h2><bdi>{}</bdi></h2>\n<p>{}</p>\n",
        index + 1,
        escape(&run.name),
        state(run)
    );
    if let Some(s) = &run.summary {
        let number = |title: &str, value: f64, place: &str| {
            let figure = Figure { value, source: format!("summary.json#/{place}") };
            let shown = Look::WHOLE.text(value);
            format!("<div><dt>{title}</dt><dd {}>{shown}</dd></div>\n", attributes(&figure))
        };
        let words = |title: &str, value: &str| format!("<div><dt>{title}</dt><dd>{}</dd></div>\n", escape(value));
        text += "<dl>\n";
        text += &number("parameters", s.parameters as f64, "parameters");
        text += &number("training steps", s.steps as f64, "steps");
        text += &number("threads", s.threads as f64, "threads");
        for (title, value) in [
            ("engine", &s.engine),
            ("arithmetic", &s.arithmetic),
            ("device", &s.device),
            ("version", &s.version),
            ("commit", &s.commit),
        ] {
            if !value.is_empty() {
                text += &words(title, value);
            }
        }
        text += "</dl>\n";
    }
    text += &format!(
        "<h3>Command</h3>\n<pre><code>{}</code></pre>\n",
        escape(&command::from(&run.config, needed, &run.name))
    );
    if !run.pictures.is_empty() {
        text += "<h3>Pictures</h3>\n<div class=\"pictures\">\n";
        for picture in &run.pictures {
            let alt = format!("{}: {}", run.name, picture.shows());
            text += &pictured(picture, &alt, &format!("{}, {}", picture.file, picture.shows()));
        }
        text += "</div>\n";
    }
    text + &settings(run, needed) + &metrics(run) + "</section>\n"
}

/// A picture with what it shows.
pub(crate) fn pictured(picture: &Picture, alt: &str, caption: &str) -> String {
    let kind = if picture.file.ends_with(".svg") { "svg+xml" } else { "png" };
    let size = picture.size.map_or(String::new(), |(w, h)| format!(" width=\"{w}\" height=\"{h}\""));
    format!(
        "<figure><img src=\"data:image/{kind};base64,{}\"{size} alt=\"{}\"/><figcaption>{}</figcaption></figure>\n",
        BASE64_STANDARD.encode(&picture.bytes),
        escape(alt),
        escape(caption),
    )
}

/// A table that can be folded. It is open where no script folds it.
pub(crate) fn folded(title: &str, head: &[&str], body: &str) -> String {
    let table = listed(title, head, body);
    format!("<details open=\"open\">\n<summary>{title}</summary>\n{table}</details>\n")
}

/// A table that is as wide as it has to be.
pub(crate) fn listed(title: &str, head: &[&str], body: &str) -> String {
    let head: String = head.iter().map(|title| format!("<th scope=\"col\">{title}</th>")).collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\">\n<table>\n<thead>\n\
         <tr>{head}</tr>\n</thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )
}

/// All settings, those first that are not the defaults.
fn settings(run: &Run, needed: &Given) -> String {
    let auto = run.config.estimator_entry().auto_settings();
    let (mut first, mut rest, mut count) = (String::new(), String::new(), 0);
    for key in run.config.keys() {
        let value = run.config.settings().get(key.name).map(ToString::to_string).unwrap_or_default();
        let is_auto = auto.contains(&key.name);
        let default = if is_auto { "auto" } else { key.default };
        let differs = if is_auto { needed.contains_key(key.name) } else { value != key.default_value().to_string() };
        let row = |class: &str| {
            format!(
                "<tr{class}><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td class=\"help\">{}</td></tr>\n",
                key.name,
                escape(&value),
                escape(default),
                escape(key.help)
            )
        };
        if differs {
            first += &row(" class=\"differs\"");
            count += 1;
        } else {
            rest += &row("");
        }
    }
    let title = format!("Settings: {} of {} are not the defaults", count, run.config.keys().len());
    folded(&title, &["setting", "value", "default", "meaning"], &(first + &rest))
}

/// The figures of the epochs, as many as can be read.
fn metrics(run: &Run) -> String {
    let measures: Vec<_> = MEASURES.iter().filter(|m| run.metrics.iter().any(|line| (m.of)(line).is_some())).collect();
    let mut body = String::new();
    let mut all: Vec<_> = SPLITS.iter().flat_map(|split| lines(run, split)).collect();
    all.sort_by_key(|(number, line)| (line.epoch, *number));
    let epochs: BTreeSet<usize> = all.iter().map(|(_, line)| line.epoch).collect();
    // The last one of all, and others at the same distance.
    let every = (SPLITS.len() * epochs.len()).div_ceil(LINES).max(1);
    let kept: BTreeSet<usize> = epochs.iter().rev().step_by(every).copied().collect();
    for (number, line) in all.iter().filter(|(_, line)| kept.contains(&line.epoch)) {
        body += &format!("<tr><th scope=\"row\">{}</th><td>{}</td>", line.epoch, escape(&line.split));
        let cell = |value: Option<f64>, field: &str, look: Look| match value {
            Some(value) => {
                let figure = Figure { value, source: source(*number, field) };
                format!("<td class=\"number\" {}>{}</td>", attributes(&figure), look.text(value))
            }
            None => "<td class=\"number\">-</td>".into(),
        };
        measures.iter().for_each(|m| body += &cell((m.of)(line), m.field, m.look));
        body += &cell(Some(line.train_seconds), "train_seconds", Look::SECONDS);
        body += &cell(Some(line.seconds), "seconds", Look::SECONDS);
        body += "</tr>\n";
    }
    let titles = measures.iter().map(|m| m.title);
    let head: Vec<&str> = ["epoch", "split"].into_iter().chain(titles).chain(["train_seconds", "seconds"]).collect();
    let title = match kept.len() == epochs.len() {
        true => "Metrics".to_string(),
        false => format!("Metrics of {} of {} evaluations", kept.len(), epochs.len()),
    };
    folded(&title, &head, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both stand in the page as they are, which is read as HTML and, by tests, as XML.
    #[test]
    fn style_and_script_need_no_escaping() {
        for text in [STYLE, SCRIPT] {
            assert!(!text.contains(['<', '&']) && text.ends_with('\n'));
            assert!(!text.contains("http") && !text.contains("url(") && !text.contains("]]>"));
        }
    }
}

//! The page: the paper, the authors' code and ours side by side, with the runs behind every figure.

use super::table::Cell;
use super::{Claim, Compared, Curves, Experiment, Measured, Record, Results, Table, judged, tables};
use crate::Result;
use crate::collect::measure_named;
use crate::picture::character_data as escape;
use crate::report::Picture;
use crate::report::curves::{self, OVER, Point};
use crate::report::figures::MEASURES;
use crate::report::page::{folded, frame, listed, pictured};

/// A page about some experiments, whose files are those of [`Results`]: every figure names the record that it is from.
///
/// # Errors
/// Pictures that cannot be read.
pub fn html(experiments: &[Experiment], claims: &[Claim], results: &Results, quick: bool) -> Result<String> {
    let is_quick = |experiment: &Experiment| quick || results.is_quick(&experiment.name);
    let any_quick = experiments.iter().any(is_quick);
    let look = if any_quick { " (a quick look)" } else { "" };
    let title = match experiments {
        [one] => format!("{}{look}", one.published.title),
        _ => format!("The paper's tables and figures, made again{look}"),
    };
    let mut names = Names::default();
    let mut main = String::new();
    for experiment in experiments {
        main += &section(experiment, results, is_quick(experiment), &mut names)?;
    }
    if !results.left_out().is_empty() {
        let all: String = results.left_out().iter().map(|what| format!("<li>{}</li>\n", escape(what))).collect();
        main +=
            &format!("<section id=\"left-out\">\n<h2>Records that are not shown</h2>\n<ul>\n{all}</ul>\n</section>\n");
    }
    if !claims.is_empty() {
        main += &claimed(claims, results);
    }
    let mut contents: String = experiments
        .iter()
        .map(|e| format!("<li><a href=\"#{}\">{}</a></li>\n", escape(&e.name), escape(&e.published.title)))
        .collect();
    if !claims.is_empty() {
        contents += "<li><a href=\"#claims\">What the paper claims</a></li>\n";
    }
    let warning = match any_quick {
        true => {
            "<p><strong>A quick look: runs of a tenth of the steps or less, whose figures say little.</strong></p>\n"
        }
        false => "",
    };
    let header = format!(
        "{warning}<p>Direct Optimization through arg max for Discrete Variational Auto-Encoder (Lorberbom, Gane, \
         Jaakkola, Hazan, NeurIPS 2019): what was published, and the runs of this program beside it. Means over seeds \
         with \
         their standard errors. Below each figure of ours stands the published one, and the difference: \
         green where ours is better, orange where it is worse.</p>\n<nav aria-label=\"Contents\">\n<ul>\n\
         {contents}</ul>\n</nav>\n"
    );
    Ok(frame(&escape(&title), &header, &main))
}

/// The lines of all figures of curves: each has a number in the page.
#[derive(Default)]
struct Names(Vec<String>);

fn section(experiment: &Experiment, results: &Results, quick: bool, names: &mut Names) -> Result<String> {
    let published = &experiment.published;
    let command = escape(&format!("gumbel reproduce {}{}", experiment.name, if quick { " --quick" } else { "" }));
    let mut text = format!(
        "<section id=\"{}\">\n<h2>{}</h2>\n<p>{}</p>\n<p class=\"note\">Source of what was published: {}.</p>\n\
         <pre><code>{command}</code></pre>\n",
        escape(&experiment.name),
        escape(&published.title),
        prose(&published.about),
        escape(&published.source),
    );
    for table in tables(experiment, results) {
        text += &shown(&table);
    }
    for curves in &published.curves {
        text += &drawn(curves, results, names);
    }
    let mut pictures = String::new();
    for step in &published.steps {
        text += &format!("<p>{}:</p>\n<pre><code>{}</code></pre>\n", escape(&step.title), escape(&step.shown()));
        let Some(path) = results.picture(&experiment.name, step) else { continue };
        if let Some(picture) = Picture::read(&path, &step.picture)? {
            pictures += &pictured(&picture, &step.title, &format!("{}: {}", step.title, step.picture));
        }
    }
    for table in &published.measured {
        text += &measured(table, &experiment.name, results);
    }
    if !pictures.is_empty() {
        text += &format!("<div class=\"pictures\">\n{pictures}</div>\n");
    }
    if !published.differs.is_empty() {
        let all: String = published.differs.iter().map(|d| format!("<li>{}</li>\n", prose(d))).collect();
        text += &format!("<h3>What is known to differ</h3>\n<ul>\n{all}</ul>\n");
    }
    Ok(text + &runs(experiment, results) + "</section>\n")
}

/// What was measured: every line of a file is a row. Long tables are folded.
fn measured(measured: &Measured, experiment: &str, results: &Results) -> String {
    let Some((file, lines)) = results.printed(experiment, &measured.file) else { return String::new() };
    let mut body = String::new();
    for (i, line) in lines.iter().enumerate() {
        body += "<tr>";
        for (j, [place, _]) in measured.names.iter().enumerate() {
            let text = line.pointer(place).and_then(|text| text.as_str()).map(escape).unwrap_or_default();
            body += &if j == 0 { format!("<th scope=\"row\">{text}</th>") } else { format!("<td>{text}</td>") };
        }
        for [place, _] in &measured.figures {
            body += &match line.pointer(place).and_then(|value| value.as_f64()) {
                Some(value) => format!(
                    "<td class=\"number\" data-value=\"{value:?}\" data-source=\"{}:{}#{}\">{}</td>",
                    escape(&file),
                    i + 1,
                    escape(place),
                    Measured::text(value)
                ),
                None => "<td class=\"number\">-</td>".into(),
            };
        }
        body += "</tr>\n";
    }
    let command = measured.command.as_ref().map(|c| format!("<pre><code>{}</code></pre>\n", escape(c)));
    let command = command.unwrap_or_default();
    let title = escape(&measured.title);
    match lines.len() > Measured::FEW {
        true => command + &folded(&format!("{title}: {} measurements", lines.len()), &measured.titles(), &body),
        false => format!("<h3>{title}</h3>\n{command}{}", listed(&title, &measured.titles(), &body)),
    }
}

/// Text in which names stand between backticks.
fn prose(text: &str) -> String {
    let parts = text.trim().split('`').map(escape).enumerate();
    parts.map(|(i, part)| if i % 2 == 1 { format!("<code>{part}</code>") } else { part.to_string() }).collect()
}

/// A table: in each place ours, and below it what was published.
fn shown(table: &Table) -> String {
    let columns: String = table
        .columns
        .iter()
        .map(|title| format!("<th scope=\"col\" class=\"number\">{}</th>", escape(title)))
        .collect();
    let mut body = String::new();
    for row in &table.rows {
        body += &format!("<tr><th scope=\"row\">{}</th>{}</tr>\n", escape(&row.name), cells(&row.cells));
    }
    format!(
        "<h3>{title}</h3>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\">\n<table \
         class=\"compared\">\n<thead>\n<tr><th scope=\"col\">{row}</th>{columns}</tr>\n</thead>\n<tbody>\n\
         {body}</tbody>\n</table>\n</div>\n",
        title = escape(&table.title),
        row = escape(&table.row),
    )
}

fn cells(cells: &[Cell]) -> String {
    let mut text = String::new();
    for cell in cells {
        let mut below = String::new();
        if let Some(paper) = cell.paper {
            let class = cell.is_better().map_or("", |better| if better { "better" } else { "worse" });
            let difference = cell.difference().map(|d| format!(" <span class=\"{class}\">({d:+.2})</span>"));
            below += &format!("<small>paper {}{}</small>", cell.published(paper), difference.unwrap_or_default());
        }
        if let Some(authors) = cell.authors {
            below += &format!("<small>authors' code {}</small>", cell.published(authors));
        }
        text += &match (cell.ours, cell.text()) {
            (Some(mean), Some(ours)) => {
                let n = if mean.n > 1 { format!(" <small>{} seeds</small>", mean.n) } else { String::new() };
                let ours = if cell.best { format!("<strong>{ours}</strong>") } else { ours };
                let source = escape(&cell.sources.join(" "));
                format!("<td data-value=\"{:?}\" data-source=\"{source}\">{ours}{n}{below}</td>", mean.mean)
            }
            _ => format!("<td>-{below}</td>"),
        };
    }
    text
}

/// Curves over epochs, over time, and over decoder passes where they are known.
fn drawn(form: &Curves, results: &Results, names: &mut Names) -> String {
    let measure = MEASURES.iter().find(|m| m.field == form.metric).expect("the files were checked when they were read");
    let first = names.0.len();
    let lines: Vec<_> = form.lines.iter().filter_map(|cell| Some((cell, results.runs(cell).first()?))).collect();
    names.0.extend(lines.iter().map(|(cell, (_, record))| {
        let name = cell.split_once('/').map_or(cell.as_str(), |(_, name)| name);
        if record.is_quick { format!("{name} (quick)") } else { name.into() }
    }));
    let all: Vec<&str> = names.0.iter().map(String::as_str).collect();
    let mut panels = String::new();
    for over in &OVER {
        let curves: Vec<curves::Curve<'_>> = lines
            .iter()
            .enumerate()
            .map(|(i, (_, (file, record)))| {
                let curve = &record.curve;
                let point = |(j, (epoch, y)): (usize, (&usize, &f64))| {
                    let x = if over.key == "epoch" { *epoch as f64 } else { *curve.values(over.key).get(j)? };
                    Some(Point { number: j, epoch: *epoch, x, y: *y })
                };
                let points = curve.epoch.iter().zip(curve.values(&form.metric)).enumerate().filter_map(point);
                let points = points.collect();
                curves::Curve { run: first + i, split: "test", file: Some(file), points }
            })
            .filter(|curve| !curve.points.is_empty())
            .collect();
        if !curves.is_empty() {
            panels += &curves::panel(&all, measure, over, &curves);
        }
    }
    if panels.is_empty() {
        return String::new();
    }
    let legend = curves::legend((first..all.len()).map(|i| (i, all[i])), &[]);
    format!("<h3>{}</h3>\n{legend}<div class=\"panels\">\n{panels}</div>\n", escape(&form.title))
}

/// All runs of an experiment with their commands and their settings.
fn runs(experiment: &Experiment, results: &Results) -> String {
    let mut names = vec!["valid_bound", "bound", "nll", "paper_loss", "kl", "accuracy", "final_bound", "seconds"];
    let measure = |name: &str| measure_named(name).expect("a figure of every version");
    let all: Vec<_> = results.of(&experiment.name).collect();
    if all.is_empty() {
        return String::new();
    }
    names.retain(|name| all.iter().any(|(_, record)| (measure(name).of)(&record.summary).is_some()));
    let mut body = String::new();
    for (file, record) in &all {
        let quick = if record.is_quick { " (quick)" } else { "" };
        body += &format!("<tr><th scope=\"row\">{}{quick}</th>", escape(&record.cell));
        for name in &names {
            let measure = measure(name);
            body += &match (measure.of)(&record.summary) {
                Some(value) => format!(
                    "<td class=\"number\" data-value=\"{value:?}\" data-source=\"{}#/summary/{}\">{:.*}</td>",
                    escape(file),
                    measure.place,
                    measure.digits(),
                    measure.scale() * value
                ),
                None => "<td class=\"number\">-</td>".into(),
            };
        }
        let summary = &record.summary;
        let place = format!("{}, {}, {}", summary.engine, summary.arithmetic, summary.commit);
        body += &format!("<td>{}</td><td><code>{}</code></td></tr>\n", escape(&place), escape(&record.command));
    }
    let titles = names.iter().map(|name| measure(name).title);
    let head: Vec<&str> = ["run"].into_iter().chain(titles).chain(["engine, arithmetic, commit", "command"]).collect();
    folded(&format!("{} runs", all.len()), &head, &body) + &settings(&all)
}

/// All settings of some runs, a row for each run; those that are the same in all of them are said once.
fn settings(runs: &[&(String, Record)]) -> String {
    let first = &runs[0].1.settings;
    let is_shared = |key: &str, value: &str| runs.iter().all(|(_, r)| r.settings.get(key).is_some_and(|v| v == value));
    let line = |key: &str, value: &str| {
        let value = if value.is_empty() { "\"\"" } else { value };
        format!("<code>{} = {}</code>", escape(key), escape(value))
    };
    let shared: Vec<String> =
        first.iter().filter(|(key, value)| is_shared(key, value)).map(|(key, value)| line(key, value)).collect();
    let mut body =
        format!("<tr><th scope=\"row\">all of them</th><td class=\"help\">{}</td></tr>\n", shared.join(", "));
    for (_, record) in runs {
        let own = record.settings.iter().filter(|(key, value)| !is_shared(key, value));
        let own: Vec<String> = own.map(|(key, value)| line(key, value)).collect();
        let cell = escape(&record.cell);
        body += &format!("<tr><th scope=\"row\">{cell}</th><td class=\"help\">{}</td></tr>\n", own.join(", "));
    }
    folded("Settings of every run", &["run", "settings"], &body)
}

/// Both sides of a comparison, each with the places of its figure.
fn comparison(compared: &Compared) -> String {
    let side = |i: usize| {
        let (name, figure) = (escape(&compared.sides[i].text()), escape(&compared.figure(i)));
        match compared.means {
            Some(means) => format!(
                "{name} <span data-value=\"{:?}\" data-source=\"{}\">{figure}</span>",
                means[i].mean,
                escape(&compared.sources[i].join(" "))
            ),
            None => format!("{name} {figure}"),
        }
    };
    format!("<li>{} {} {}</li>\n", side(0), compared.sign(), side(1))
}

/// The verdicts.
fn claimed(claims: &[Claim], results: &Results) -> String {
    let mut body = String::new();
    for claim in claims {
        let judged = judged(claim, results);
        let all: String = judged.compared.iter().map(comparison).collect();
        let all = match all.is_empty() {
            true => String::new(),
            false => {
                format!("<details open=\"open\"><summary>comparisons</summary><ul>\n{all}</ul></details>")
            }
        };
        let remark = if claim.remark.is_empty() { String::new() } else { format!("<p>{}</p>", prose(&claim.remark)) };
        body += &format!(
            "<tr><td>{} <small>({})</small></td><td>{}</td><td><strong>{}</strong></td><td>{}{remark}{all}</td></tr>\n",
            prose(&claim.sentence),
            escape(&claim.place),
            prose(&claim.shown_by),
            escape(&judged.verdict_text()),
            prose(&judged.counts()),
        );
    }
    let head: String = ["sentence, in our words", "what would show it", "verdict", "comparisons"]
        .map(|title| format!("<th scope=\"col\">{title}</th>"))
        .concat();
    format!(
        "<section id=\"claims\">\n<h2>What the paper claims</h2>\n<p>A verdict is computed from the runs, unless it \
         names the file in which it was measured: in each comparison the first is to be better. A sentence holds if it \
         does in all of them; some hold only with what the authors leave out of one side.</p>\n<div class=\"scroll\" \
         tabindex=\"0\" role=\"region\" \
         aria-label=\"Claims\">\n<table class=\"claims\">\n<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n\
         {body}</tbody>\n</table>\n</div>\n</section>\n"
    )
}

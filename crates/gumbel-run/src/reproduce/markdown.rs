//! The same in Markdown: every row of the paper with its command, the published value, ours, and what differs.

use super::{Claim, Experiment, Measured, Results, judged, tables};
use crate::collect::markdown_row;
use std::fmt::Write;

/// A page about some experiments. `beside`: whether the folders of the records stand beside the page, so that it can
/// lead to their pictures; that of the repository leads to those in its own folder.
pub fn markdown(experiments: &[Experiment], claims: &[Claim], results: &Results, quick: bool, beside: bool) -> String {
    let is_quick = |experiment: &Experiment| quick || results.is_quick(&experiment.name);
    let any_quick = experiments.iter().any(is_quick);
    let mut text = String::from("# What the paper reports, and what comes out here\n\n");
    text += &format!(
        "Made by `gumbel reproduce` from the records of runs; losses in nats per image. *ours* is the mean over seeds \
         with its standard error, n their number where there are several; the difference is ours less the paper's. \
         Bold is the best of ours among lines with the same first entry, ≈ an estimate of the bound, - what nobody has \
         trained or published.{}\n",
        if any_quick { " **A quick look: short runs, whose figures say little.**" } else { "" }
    );
    let mut add = |line: String| writeln!(text, "{line}").expect("a string takes all text");
    for experiment in experiments {
        let published = &experiment.published;
        add(format!("\n## {}\n", published.title));
        add(format!(
            "    gumbel reproduce {}{}\n",
            experiment.name,
            if is_quick(experiment) { " --quick" } else { "" }
        ));
        add(format!("{} Source: {}.", published.about.trim(), published.source));
        for table in tables(experiment, results) {
            add(format!("\n**{}**\n", table.title));
            let known = |of: fn(&super::Cell) -> Option<f64>| {
                table.rows.iter().flat_map(|row| &row.cells).any(|cell| of(cell).is_some())
            };
            let (paper, authors) = (known(|cell| cell.paper), known(|cell| cell.authors));
            let mut head = vec![table.row.clone(), "".into(), "metric".into()];
            head.extend(paper.then(|| "paper".to_string()));
            head.extend(authors.then(|| "authors' code".to_string()));
            head.push("ours".into());
            head.extend(paper.then(|| "difference".to_string()));
            add(markdown_row(&head));
            add(format!("|---|---|---|{}", "---:|".repeat(head.len() - 3)));
            for row in &table.rows {
                for (title, cell) in table.columns.iter().zip(&row.cells) {
                    let number = |value: Option<f64>| value.map_or("-".into(), |value| cell.published(value));
                    let ours = cell.text().map_or("-".into(), |ours| match cell.ours.map_or(1, |mean| mean.n) {
                        1 => ours,
                        n => format!("{ours} (n = {n})"),
                    });
                    let ours = if cell.best { format!("**{ours}**") } else { ours };
                    let mut cells = vec![row.name.clone(), title.clone(), cell.measure().title.to_string()];
                    cells.extend(paper.then(|| number(cell.paper)));
                    cells.extend(authors.then(|| number(cell.authors)));
                    cells.push(ours);
                    let difference = || cell.difference().map_or("-".into(), |d| format!("{d:+.2}"));
                    cells.extend(paper.then(difference));
                    add(markdown_row(&cells));
                }
            }
        }
        for step in &published.steps {
            add(format!("\n**{}**\n\n    {}", step.title, step.shown()));
            if beside && results.has_picture(&experiment.name, &step.picture) {
                add(format!("\nIts picture: [{0}]({1}/results/{0}).", step.picture, experiment.name));
            } else if let Some(file) = step.committed.as_ref().filter(|_| !beside) {
                add(format!("\nOne that was made by a script of the repository: [{file}]({file})."));
            }
        }
        for measured in &published.measured {
            let Some((file, lines)) = results.printed(&experiment.name, &measured.file) else { continue };
            add(format!("\n**{}** ({} lines of {file})", measured.title, lines.len()));
            measured.command.iter().for_each(|command| add(format!("\n    {command}")));
            if lines.len() > Measured::FEW {
                continue;
            }
            let of = |line: &serde_json::Value, [place, _]: &[String; 2]| match line.pointer(place) {
                Some(serde_json::Value::String(text)) => text.clone(),
                Some(value) => value.as_f64().map_or("-".into(), Measured::text),
                None => "-".into(),
            };
            add(format!("\n{}", markdown_row(&measured.titles())));
            add(format!("|{}{}", "---|".repeat(measured.names.len()), "---:|".repeat(measured.figures.len())));
            for line in lines {
                let columns = measured.names.iter().chain(&measured.figures);
                add(markdown_row(&columns.map(|column| of(line, column)).collect::<Vec<_>>()));
            }
        }
        if !published.differs.is_empty() {
            add("\nWhat is known to differ:\n".into());
            published.differs.iter().for_each(|differs| add(format!("- {}", differs.trim())));
        }
    }
    if !results.left_out().is_empty() {
        add("\n## Records that are not shown\n".into());
        results.left_out().iter().for_each(|what| add(format!("- {what}")));
    }
    if !claims.is_empty() {
        add("\n## What the paper claims\n".into());
        add("| sentence, in our words | where | what would show it | verdict | comparisons |\n|---|---|---|---|---|"
            .into());
        for claim in claims {
            let judged = judged(claim, results);
            let remark = if claim.remark.is_empty() { String::new() } else { format!(". {}", claim.remark.trim()) };
            add(markdown_row(&[
                claim.sentence.trim(),
                &claim.place,
                claim.shown_by.trim(),
                &format!("**{}**", judged.verdict_text()),
                &format!("{}{remark}", judged.counts()),
            ]));
        }
    }
    text
}

//! Tables of figures as Markdown has them, written and read: README's figures are held against those of docs/performance.md by
//! what is here.
#![allow(dead_code, reason = "the benchmark writes, and the test reads")]

use std::fmt::Write as _;

/// A section of the document: a table, with a row for each that was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) title: String,
    /// What is in the first column, and in the others.
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Section {
    /// The table as Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = line(&self.columns);
        text.push_str("|---|");
        text.push_str(&"---:|".repeat(self.columns.len() - 1));
        text.push('\n');
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text
    }

    fn figure(&self, row: &str, column: &str) -> Option<&str> {
        let column = self.columns.iter().position(|name| name == column)?;
        let row = self.rows.iter().find(|cells| cells[0] == row)?;
        row.get(column).map(String::as_str)
    }
}

/// The sections of a document: a heading of the second degree, and the table behind it.
pub(crate) fn sections(markdown: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for text in markdown.lines() {
        if let Some(title) = text.strip_prefix("## ") {
            sections.push(Section {
                title: title.to_owned(),
                columns: vec![],
                rows: vec![],
            });
        } else if let (Some(cells), Some(section)) = (cells(text), sections.last_mut()) {
            if section.columns.is_empty() {
                section.columns = cells;
            } else if !cells
                .iter()
                .all(|cell| cell.chars().all(|c| "-:".contains(c)))
            {
                section.rows.push(cells);
            }
        }
    }
    sections.retain(|section| !section.columns.is_empty());
    sections
}

/// The figure at `SECTION › ROW › COLUMN`.
pub(crate) fn figure<'a>(sections: &'a [Section], place: &str) -> Option<&'a str> {
    let [section, row, column] = place.split(" › ").collect::<Vec<_>>()[..] else {
        return None;
    };
    let section = sections.iter().find(|other| other.title == section)?;
    section.figure(row, column)
}

/// The rows of a README that have a figure and say where it stands: `| what | figure | SECTION › ROW › COLUMN |`.
pub(crate) fn claims(readme: &str) -> Vec<[String; 3]> {
    readme
        .lines()
        .filter_map(cells)
        .filter_map(|cells| <[String; 3]>::try_from(cells).ok())
        .filter(|cells| cells[2].contains(" › "))
        .collect()
}

/// A README whose claims have the figures of these sections.
pub(crate) fn with_figures(readme: &str, sections: &[Section]) -> String {
    let mut text = String::with_capacity(readme.len());
    for old in readme.lines() {
        let claim = claims(old).pop();
        let new = claim.and_then(|[what, _, place]| {
            let figure = figure(sections, &place)?;
            Some(format!("| {what} | {figure} | {place} |"))
        });
        let _ = writeln!(text, "{}", new.as_deref().unwrap_or(old));
    }
    text
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(
        inner
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect(),
    )
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

//! One table, and the same figures for other programs.

use super::Sample;
use super::row::{Ask, Row};
use super::units::Unit;
use anyhow::Result;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use statrs::statistics::{Data, Max, Min, OrderStatistics};
use std::path::Path;

/// All rounds of one cell.
pub struct Outcome {
    pub peer: String,
    pub ask: Option<Ask>,
    pub samples: Vec<Sample>,
    /// Why there are no figures.
    pub trouble: Option<String>,
}

/// Median and range of the rounds.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub beside: Option<f64>,
}

pub struct Measured<'a> {
    pub row: &'a Row,
    pub outcomes: Vec<Outcome>,
}

impl Outcome {
    pub fn figure(&self) -> Option<Figure> {
        if self.samples.is_empty() {
            return None;
        }
        let mut values = Data::new(
            self.samples
                .iter()
                .map(|sample| sample.value)
                .collect::<Vec<_>>(),
        );
        let mut beside = Data::new(
            self.samples
                .iter()
                .filter_map(|sample| sample.beside)
                .collect::<Vec<_>>(),
        );
        Some(Figure {
            median: values.median(),
            least: values.min(),
            most: values.max(),
            beside: (!beside.is_empty()).then(|| beside.median()),
        })
    }
}

impl Measured<'_> {
    fn rival(&self) -> Option<f64> {
        let rival = self
            .outcomes
            .iter()
            .find(|outcome| outcome.peer == self.row.rival)?;
        Some(rival.figure()?.median)
    }

    pub fn ratio(&self, figure: Figure) -> Option<f64> {
        Some(self.row.unit.ratio(figure.median, self.rival()?))
    }

    /// What was asked of a cell and whether it got there.
    fn asked(&self, outcome: &Outcome) -> Option<(String, Option<bool>)> {
        let figure = outcome.figure();
        let (text, met) = match outcome.ask? {
            Ask::Times(times) => {
                let met = figure
                    .and_then(|figure| self.ratio(figure))
                    .map(|ratio| ratio >= times);
                (format!("≥ {times:.2}x"), met)
            }
            Ask::TimesOf(times, peer) => {
                let its = self
                    .outcomes
                    .iter()
                    .find(|outcome| outcome.peer.ends_with(peer));
                let its = its.and_then(Outcome::figure);
                let met = figure
                    .zip(its)
                    .map(|(figure, its)| self.row.unit.ratio(figure.median, its.median) >= times);
                (format!("≥ {times:.2}x of {peer}"), met)
            }
            Ask::Figure(value) => {
                let sign = if self.row.unit == Unit::Time {
                    "≤"
                } else {
                    "≥"
                };
                let met = figure.map(|figure| self.row.unit.ratio(figure.median, value) >= 1.0);
                (format!("{sign} {}", self.row.unit.show(value)), met)
            }
        };
        Some((text, met))
    }

    /// Cells that fell short of what was asked, or could not be measured.
    pub fn short(&self) -> impl Iterator<Item = String> {
        self.outcomes.iter().filter_map(|outcome| {
            let (text, met) = self.asked(outcome)?;
            (met != Some(true)).then(|| {
                format!(
                    "{} | {} | {}: {text}",
                    self.row.group.name(),
                    self.row.name,
                    outcome.peer
                )
            })
        })
    }

    /// Best first, those without figures last.
    pub fn sorted(&self) -> Vec<(&Outcome, Option<Figure>)> {
        let mut all: Vec<_> = self
            .outcomes
            .iter()
            .map(|outcome| (outcome, outcome.figure()))
            .collect();
        all.sort_by(|(_, one), (_, other)| match (one, other) {
            (Some(one), Some(other)) => self
                .row
                .unit
                .ratio(other.median, one.median)
                .total_cmp(&1.0),
            _ => other.is_some().cmp(&one.is_some()),
        });
        all
    }
}

pub fn table(all: &[Measured]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "what",
        "who",
        "median",
        "min – max",
        "beside",
        "against",
        "ratio",
        "asked",
    ]);
    for measured in all {
        let row = measured.row;
        let mut title = format!("{}: {}", row.group.name(), row.name);
        for (outcome, figure) in measured.sorted() {
            let mut cells = vec![std::mem::take(&mut title), outcome.peer.clone()];
            match figure {
                Some(figure) => {
                    let beside = match (row.beside, figure.beside) {
                        (Some("least share"), Some(share)) => format!("least share {share:.2}"),
                        (Some(what), Some(value)) => format!("{what} {}", row.unit.show(value)),
                        _ => String::new(),
                    };
                    let ratio = measured
                        .ratio(figure)
                        .map_or(String::new(), |ratio| format!("{ratio:.2}x"));
                    let against = if ratio.is_empty() {
                        String::new()
                    } else {
                        row.rival.to_string()
                    };
                    cells.extend([
                        row.unit.show(figure.median),
                        format!(
                            "{} – {}",
                            row.unit.show(figure.least),
                            row.unit.show(figure.most)
                        ),
                        beside,
                        against,
                        ratio,
                    ]);
                }
                None => {
                    let why = outcome.trouble.clone().unwrap_or_default();
                    cells.extend([
                        "–".to_string(),
                        why,
                        String::new(),
                        String::new(),
                        String::new(),
                    ]);
                }
            }
            cells.push(match measured.asked(outcome) {
                Some((text, Some(true))) => format!("{text}, met"),
                Some((text, Some(false))) => format!("{text}, SHORT"),
                Some((text, None)) => text,
                None => String::new(),
            });
            table.add_row(cells);
        }
    }
    for at in [2, 6] {
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

pub fn csv(all: &[Measured], machine: &str, path: &Path) -> Result<()> {
    let mut out = csv::Writer::from_path(path)?;
    out.write_record([
        "group", "row", "peer", "unit", "median", "min", "max", "beside", "rival", "ratio",
        "rounds", "machine",
    ])?;
    for measured in all {
        for (outcome, figure) in measured.sorted() {
            let Some(figure) = figure else { continue };
            out.write_record([
                measured.row.group.name(),
                measured.row.name.clone(),
                outcome.peer.clone(),
                measured.row.unit.name().to_string(),
                figure.median.to_string(),
                figure.least.to_string(),
                figure.most.to_string(),
                figure
                    .beside
                    .map_or(String::new(), |value| value.to_string()),
                measured.row.rival.to_string(),
                measured
                    .ratio(figure)
                    .map_or(String::new(), |ratio| ratio.to_string()),
                outcome.samples.len().to_string(),
                machine.to_string(),
            ])?;
        }
    }
    Ok(out.flush()?)
}

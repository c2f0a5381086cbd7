//! A picture of the table: one block of bars for each row, the longest bar the best.

use super::report::Measured;
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

const WIDTH: i32 = 980;
const NAMES: i32 = 310;
const FIGURES: i32 = 130;
const LINE: i32 = 20;
const GAP: i32 = 44;

const OURS: RGBColor = RGBColor(0xd4, 0x5d, 0x00);
const PEERS: RGBColor = RGBColor(0x8a, 0x97, 0xa6);
const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);

pub fn svg(all: &[Measured], machine: &str, path: &Path) -> Result<()> {
    let bars = |measured: &Measured| {
        measured
            .sorted()
            .iter()
            .filter(|(_, figure)| figure.is_some())
            .count() as i32
    };
    let height: i32 = all
        .iter()
        .map(bars)
        .filter(|&bars| bars > 0)
        .map(|bars| bars * LINE + GAP)
        .sum::<i32>()
        + 40;
    let area = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    draw(&area, all, machine, height)
        .map_err(|error| anyhow!("drawing {}: {error}", path.display()))
}

fn draw<B: DrawingBackend>(
    area: &DrawingArea<B, plotters::coord::Shift>,
    all: &[Measured],
    machine: &str,
    height: i32,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let style = |size: i32, hpos: HPos| {
        ("sans-serif", size)
            .into_font()
            .color(&INK)
            .pos(Pos::new(hpos, VPos::Center))
    };
    area.fill(&WHITE)?;
    let mut y = 0;
    for measured in all {
        let cells: Vec<_> = measured
            .sorted()
            .into_iter()
            .filter_map(|(who, figure)| Some((who, figure?)))
            .collect();
        let Some(&(_, best)) = cells.first() else {
            continue;
        };
        let title = format!("{}: {}", measured.row.group.name(), measured.row.name);
        area.draw_text(&title, &style(19, HPos::Left), (10, y + GAP / 2 + 4))?;
        y += GAP;
        for (who, figure) in cells {
            let share = measured.row.unit.ratio(figure.median, best.median);
            let length = ((WIDTH - NAMES - FIGURES) as f64 * share).max(2.0) as i32;
            let middle = y + LINE / 2;
            let color = if who.peer.starts_with("multiproc") {
                OURS
            } else {
                PEERS
            };
            area.draw_text(&who.peer, &style(16, HPos::Right), (NAMES - 8, middle))?;
            area.draw(&Rectangle::new(
                [(NAMES, y + 3), (NAMES + length, y + LINE - 3)],
                color.filled(),
            ))?;
            let figure = measured.row.unit.show(figure.median);
            area.draw_text(
                &figure,
                &style(16, HPos::Left),
                (NAMES + length + 8, middle),
            )?;
            y += LINE;
        }
    }
    let note = format!("longer is better; {machine}");
    area.draw_text(&note, &style(14, HPos::Left), (10, height - 14))?;
    area.present()
}

//! How cost grows, as curves.

use std::path::Path;

use plotters::prelude::*;

use crate::tables::Section;

/// Colours that are told apart by those who see fewer of them (Okabe and Ito), in the order of the rows.
const COLOURS: [RGBColor; 9] = [
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0x66, 0x66, 0x66),
    RGBColor(0x00, 0x00, 0x00),
    RGBColor(0xa0, 0x8a, 0x00),
];

/// Draws the times of a section against its levels, both by powers of ten.
pub(crate) fn draw(section: &Section, across: &str, file: &Path) {
    let levels: Vec<f64> = section.columns[1..section.columns.len() - 1]
        .iter()
        .map(|level| number(level.trim_end_matches(" × 2")))
        .collect();
    // There is no 0 among powers of ten: the idle host stands at the left edge, one below the least.
    let positive = levels.iter().copied().filter(|&level| level > 0.0);
    let least = positive.fold(f64::INFINITY, f64::min);
    let has_zero = levels.contains(&0.0);
    let left = if has_zero { least / 10.0 } else { least };
    let right = levels.iter().copied().fold(least, f64::max);
    let curves: Vec<(&str, Vec<(f64, f64)>)> = section
        .rows
        .iter()
        .map(|row| {
            let points = levels.iter().zip(&row[1..]);
            let points = points.filter_map(|(&level, cell)| {
                milliseconds(cell).map(|time| (level.max(left), time))
            });
            (row[0].as_str(), points.collect())
        })
        .collect();
    let most = curves
        .iter()
        .flat_map(|(_, points)| points)
        .map(|point| point.1);
    let top = most.fold(1.0, f64::max) * 2.0;

    let area = SVGBackend::new(file, (960, 560)).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&area)
        .caption(&section.title, ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(72)
        .build_cartesian_2d((left..right).log_scale(), (0.5..top).log_scale())
        .unwrap();
    chart
        .configure_mesh()
        .x_desc(across)
        .y_desc("milliseconds")
        .light_line_style(WHITE)
        .x_label_formatter(&|level| {
            if has_zero && *level <= left {
                "0".to_owned()
            } else {
                format!("{level:.0}")
            }
        })
        .y_label_formatter(&|time| format!("{time}"))
        .draw()
        .unwrap();
    for ((name, points), colour) in curves.into_iter().zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(3))
            .unwrap()
            .label(name.replace('`', ""))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()
        .unwrap();
    area.present().unwrap();
}

fn number(text: &str) -> f64 {
    text.replace(',', "").parse().unwrap()
}

fn milliseconds(cell: &str) -> Option<f64> {
    let (value, unit) = cell.split_once(' ')?;
    let value: f64 = value.parse().ok()?;
    match unit {
        "s" => Some(value * 1e3),
        "ms" => Some(value),
        _ => None,
    }
}

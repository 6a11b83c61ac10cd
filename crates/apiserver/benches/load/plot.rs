//! Lines over logarithmic axes, as SVG.

use crate::Fallible;
use std::fmt::Write as _;
use std::path::Path;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 210.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 7] = ["#1b6ca8", "#c0392b", "#27864f", "#8e44ad", "#b9770e", "#34495e", "#117a8b"];

/// One curve.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

impl Line {
    pub fn new(name: &str) -> Self {
        Line { name: name.to_owned(), points: Vec::new() }
    }
}

/// The decades that hold all values.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.filter(|v| *v > 0.0).fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
    if low > high { (0.0, 1.0) } else { (low.log10().floor(), high.log10().ceil().max(low.log10().floor() + 1.0)) }
}

/// Draws lines into a file.
pub fn draw(file: &Path, title: &str, x: &str, y: &str, lines: &[Line]) -> Fallible {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let (x_low, x_high) = decades(points().map(|p| p.0));
    let (y_low, y_high) = decades(points().map(|p| p.1));
    let across = |v: f64| LEFT + (v.log10() - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
    let up = |v: f64| HEIGHT - BOTTOM - (v.max(1e-9).log10() - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{title}</text>\n"
    );
    for decade in x_low as i32..=x_high as i32 {
        let (value, at) = (10f64.powi(decade), across(10f64.powi(decade)));
        writeln!(svg, "<path d=\"M{at:.1} {TOP}V{:.1}\" stroke=\"#ddd\"/>", HEIGHT - BOTTOM)?;
        writeln!(svg, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value}</text>", HEIGHT - BOTTOM + 18.0)?;
    }
    for decade in y_low as i32..=y_high as i32 {
        let (value, at) = (10f64.powi(decade), up(10f64.powi(decade)));
        writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#ddd\"/>", WIDTH - RIGHT)?;
        writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>", LEFT - 6.0, at + 4.0)?;
    }
    writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 10.0
    )?;
    writeln!(
        svg,
        "<text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">{y}</text>",
        HEIGHT / 2.0
    )?;
    for (n, line) in lines.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let path: Vec<String> = line.points.iter().map(|(a, b)| format!("{:.1} {:.1}", across(*a), up(*b))).collect();
        writeln!(svg, "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", path.join("L"))?;
        for (a, b) in &line.points {
            writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", across(*a), up(*b))?;
        }
        let at = TOP + 10.0 + 18.0 * n as f64;
        writeln!(svg, "<text x=\"{:.1}\" y=\"{at:.1}\" fill=\"{colour}\">{}</text>", WIDTH - RIGHT + 12.0, line.name)?;
    }
    svg += "</svg>\n";
    std::fs::write(file, svg)?;
    Ok(())
}

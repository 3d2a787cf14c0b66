//! The plot: for each scenario with the default config the medians of all contestants, in units of crun's.

use std::fmt::Write as _;

use crate::report::{Report, Section};

const WIDTH: f64 = 900.0;
const LABELS: f64 = 210.0;
const BAR: f64 = 13.0;
const GAP: f64 = 14.0;
/// Where the scale ends, in units of crun's time; what is longer is cut off, and says how long it is.
const END: f64 = 4.0;
const COLOURS: [(&str, &str); 6] = [
    ("floor", "#9aa5b1"),
    ("stasis", "#1f6feb"),
    ("crun", "#e3a008"),
    ("runc", "#d1495b"),
    ("youki", "#7b5ea7"),
    ("libcontainer", "#3b8b6e"),
];

/// Returns it as SVG.
pub fn svg(report: &Report) -> String {
    let shown = |section: &&Section| section.row("crun").is_some() && section.row("stasis").is_some();
    let mut body = String::new();
    let mut y = 46.0;
    for section in report.sections.iter().filter(shown) {
        let rows: Vec<_> = COLOURS.iter().filter_map(|(name, colour)| Some((section.row(name)?, *colour))).collect();
        let middle = y + BAR * rows.len() as f64 / 2.0 + 4.0;
        let label = format!("{}, {}", section.scenario, section.config);
        let _ = writeln!(body, r#"<text x="{}" y="{middle:.1}" text-anchor="end">{label}</text>"#, LABELS - 8.0);
        for (row, colour) in rows {
            let ratio = row.to_crun.unwrap_or_default();
            let width = place(ratio.min(END)) - LABELS;
            let _ = writeln!(
                body,
                r#"<rect x="{LABELS}" y="{y:.1}" width="{width:.1}" height="{}" fill="{colour}"/><text x="{:.1}" y="{:.1}" class="figure">{ratio:.2}</text>"#,
                BAR - 1.0,
                LABELS + width + 4.0,
                y + BAR - 3.0,
            );
            y += BAR;
        }
        y += GAP;
    }
    let mut legend = String::new();
    for (index, (name, colour)) in COLOURS.iter().enumerate() {
        let x = LABELS + 105.0 * index as f64;
        let _ = writeln!(
            legend,
            r#"<rect x="{x}" y="14" width="12" height="12" fill="{colour}"/><text x="{}" y="24">{name}</text>"#,
            x + 17.0
        );
    }
    let one = place(1.0);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0}" font-family="sans-serif" font-size="12">
<style>.figure {{ font-size: 10px; fill: #444 }}</style>
<rect width="100%" height="100%" fill="#fff"/>
{legend}<line x1="{one}" x2="{one}" y1="36" y2="{:.0}" stroke="#444" stroke-dasharray="3 3"/>
{body}</svg>
"##,
        y - GAP
    )
}

/// Returns where a time is on the scale.
fn place(ratio: f64) -> f64 {
    LABELS + ratio / END * (WIDTH - LABELS - 50.0)
}

//! The map's colours, as those see them who see fewer.
//!
//! What must be told apart is: the three assignments from each other, every mark from every assignment it stands on, and the marks
//! from each other. It is held for normal sight and for protanopia, deuteranopia and tritanopia, in both themes. Marks differ in
//! their shapes as well (a disk, a diamond with a cross, a square, a ring, a ring of dashes); those that are squares where a port is
//! a few pixels must differ more.
//!
//! Sight is simulated with the matrices of Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color
//! Vision Deficiency" (2009), severity 1.0, on linear RGB. Difference is CIEDE2000 (Sharma, Wu and Dalal, 2005), of which 1 is
//! about what can just be seen; contrast is that of WCAG 2.2.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use std::collections::BTreeMap;
use std::f64::consts::PI;

const PAGE: &str = include_str!("../src/web/map.html");

const GROUNDS: [&str; 3] = ["unassigned", "reserved", "assigned"];
const MARKS: [&str; 6] = [
    "lit",
    "unexpected",
    "knock",
    "knock-low",
    "watched",
    "other",
];

type Matrix = [[f64; 3]; 3];

const SIGHTS: [(&str, Matrix); 4] = [
    (
        "normal sight",
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    ),
    (
        "protanopia",
        [
            [0.152_286, 1.052_583, -0.204_868],
            [0.114_503, 0.786_281, 0.099_216],
            [-0.003_882, -0.048_116, 1.051_998],
        ],
    ),
    (
        "deuteranopia",
        [
            [0.367_322, 0.860_646, -0.227_968],
            [0.280_085, 0.672_501, 0.047_413],
            [-0.011_820, 0.042_940, 0.968_881],
        ],
    ),
    (
        "tritanopia",
        [
            [1.255_528, -0.076_749, -0.178_779],
            [-0.078_411, 0.930_809, 0.147_602],
            [0.004_733, 0.691_367, 0.303_900],
        ],
    ),
];

/// A colour as light: red, green and blue, linear, from 0 to 1.
#[derive(Clone, Copy, Debug)]
struct Light([f64; 3]);

impl Light {
    /// `#rgb` or `#rrggbb`.
    fn parse(text: &str) -> Self {
        let digits = text.strip_prefix('#').unwrap();
        let at = |i: usize| match digits.len() {
            3 => digits[i..=i].repeat(2),
            _ => digits[2 * i..2 * i + 2].to_owned(),
        };
        Self([0, 1, 2].map(|i| {
            let value = f64::from(u8::from_str_radix(&at(i), 16).unwrap()) / 255.0;
            if value <= 0.040_45 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        }))
    }

    fn seen_by(self, sight: &Matrix) -> Self {
        Self(sight.map(|row| dot(row, self.0).clamp(0.0, 1.0)))
    }

    fn luminance(self) -> f64 {
        dot([0.2126, 0.7152, 0.0722], self.0)
    }

    /// CIE L*a*b* for the white D65.
    fn lab(self) -> [f64; 3] {
        const TO_XYZ: Matrix = [
            [0.412_456_4, 0.357_576_1, 0.180_437_5],
            [0.212_672_9, 0.715_152_2, 0.072_175_0],
            [0.019_333_9, 0.119_192_0, 0.950_304_1],
        ];
        const WHITE: [f64; 3] = [0.950_47, 1.0, 1.088_83];
        let scaled = |i: usize| {
            let t = dot(TO_XYZ[i], self.0) / WHITE[i];
            if t > 216.0 / 24_389.0 {
                t.cbrt()
            } else {
                (24_389.0 / 27.0 * t + 16.0) / 116.0
            }
        };
        let [x, y, z] = [0, 1, 2].map(scaled);
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// WCAG 2.2, "contrast ratio".
fn contrast(a: Light, b: Light) -> f64 {
    let (a, b) = (a.luminance(), b.luminance());
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// CIEDE2000, in the terms of Sharma, Wu and Dalal.
fn difference([l1, a1, b1]: [f64; 3], [l2, a2, b2]: [f64; 3]) -> f64 {
    let seventh = |c: f64| (c.powi(7) / (c.powi(7) + 25_f64.powi(7))).sqrt();
    let g = 0.5 * (1.0 - seventh(f64::midpoint(a1.hypot(b1), a2.hypot(b2))));
    let (a1, a2) = (a1 * (1.0 + g), a2 * (1.0 + g));
    let (c1, c2) = (a1.hypot(b1), a2.hypot(b2));
    let hue = |a: f64, b: f64| b.atan2(a).rem_euclid(2.0 * PI);
    let (h1, h2) = (hue(a1, b1), hue(a2, b2));
    let is_grey = c1 * c2 == 0.0;
    let turn = match h2 - h1 {
        _ if is_grey => 0.0,
        turn if turn > PI => turn - 2.0 * PI,
        turn if turn < -PI => turn + 2.0 * PI,
        turn => turn,
    };
    let hue = match h1 + h2 {
        sum if is_grey => sum,
        sum if (h1 - h2).abs() <= PI => sum / 2.0,
        sum if sum < 2.0 * PI => sum / 2.0 + PI,
        sum => sum / 2.0 - PI,
    };
    let (l, c) = (f64::midpoint(l1, l2), f64::midpoint(c1, c2));
    let degrees = |angle: f64| angle.to_radians();
    let t = 1.0 - 0.17 * (hue - degrees(30.0)).cos()
        + 0.24 * (2.0 * hue).cos()
        + 0.32 * (3.0 * hue + degrees(6.0)).cos()
        - 0.20 * (4.0 * hue - degrees(63.0)).cos();
    let of_light = 1.0 + 0.015 * (l - 50.0).powi(2) / (20.0 + (l - 50.0).powi(2)).sqrt();
    let (of_chroma, of_hue) = (1.0 + 0.045 * c, 1.0 + 0.015 * c * t);
    let around_blue = (-((hue.to_degrees() - 275.0) / 25.0).powi(2)).exp();
    let rotation = -2.0 * seventh(c) * (2.0 * degrees(30.0) * around_blue).sin();
    let light = (l2 - l1) / of_light;
    let chroma = (c2 - c1) / of_chroma;
    let hue = 2.0 * (c1 * c2).sqrt() * (turn / 2.0).sin() / of_hue;
    (light.powi(2) + chroma.powi(2) + hue.powi(2) + rotation * chroma * hue).sqrt()
}

/// The colours of each theme, by name, as the page's style sheet has them.
fn themes() -> [(&'static str, BTreeMap<&'static str, Light>); 2] {
    let light = PAGE.find(":root {").unwrap();
    let dark = PAGE.find("@media (prefers-color-scheme: dark)").unwrap();
    let end = PAGE.find("* { box-sizing").unwrap();
    let colours = |text: &'static str| {
        let declarations = text.split("--").skip(1);
        declarations
            .map(|declaration| {
                let (name, rest) = declaration.split_once(": ").unwrap();
                (name, Light::parse(rest.split_once(';').unwrap().0))
            })
            .collect()
    };
    [
        ("light", colours(&PAGE[light..dark])),
        ("dark", colours(&PAGE[dark..end])),
    ]
}

/// How much two colours must differ, if they must.
fn least(a: &str, b: &str) -> f64 {
    let is_ground = |name| GROUNDS.contains(&name);
    let is_knock = |name: &str| name.starts_with("knock");
    match (is_ground(a), is_ground(b)) {
        (true, true) => 8.0,
        (true, false) | (false, true) => {
            if a == "knock-low" || b == "knock-low" {
                15.0
            } else {
                18.0
            }
        }
        // Two ends of one scale.
        (false, false) if is_knock(a) && is_knock(b) => 12.0,
        // Squares both, in the picture of all ports.
        (false, false) if (is_knock(a) && b == "watched") || (a == "watched" && is_knock(b)) => {
            16.0
        }
        // Their shapes differ.
        (false, false) => 10.0,
    }
}

#[test]
fn what_must_be_told_apart_can_be_by_everybody() {
    let names: Vec<&str> = GROUNDS.into_iter().chain(MARKS).collect();
    let mut alike = Vec::new();
    for (theme, colours) in themes() {
        for (sight, matrix) in &SIGHTS {
            for (i, a) in names.iter().enumerate() {
                for b in &names[i + 1..] {
                    let lab = |name| colours[name].seen_by(matrix).lab();
                    let (found, least) = (difference(lab(a), lab(b)), least(a, b));
                    if found < least {
                        alike.push(format!(
                            "{theme}, {sight}: {a} and {b}: {found:.1} < {least}"
                        ));
                    }
                }
            }
        }
    }
    assert!(alike.is_empty(), "{alike:#?}");
}

#[test]
fn marks_and_words_have_the_contrast_they_need() {
    let mut faint = Vec::new();
    for (theme, colours) in themes() {
        let mut need = |a: &str, b: &str, least: f64| {
            let found = contrast(colours[a], colours[b]);
            if found < least {
                faint.push(format!("{theme}: {a} on {b}: {found:.2} < {least}"));
            }
        };
        for ground in ["card", "ground"] {
            for word in ["ink", "dim", "link", "lit", "unexpected"] {
                need(word, ground, 4.5);
            }
            need("focus", ground, 3.0);
        }
        for mark in MARKS {
            for ground in GROUNDS {
                // A few knocks are meant to be quieter than many: they are told by their hue as well, above.
                need(mark, ground, if mark == "knock-low" { 1.5 } else { 3.0 });
            }
        }
        // The lit ones have a seam, which tells them from lit neighbours.
        for mark in ["lit", "unexpected"] {
            need(mark, "edge", 3.0);
        }
    }
    assert!(faint.is_empty(), "{faint:#?}");
}

/// Pairs of the table that the authors of the formula publish, numbers 1, 9, 17, 24 and 34.
#[test]
fn the_difference_is_that_of_its_authors() {
    for (a, b, published) in [
        ([50.0, 2.6772, -79.7751], [50.0, 0.0, -82.7485], 2.0425),
        ([50.0, 2.4900, -0.0010], [50.0, -2.4900, 0.0009], 7.1792),
        ([50.0, 2.5000, 0.0000], [73.0, 25.0000, -18.0000], 27.1492),
        ([50.0, 2.5000, 0.0000], [50.0, 3.2592, 0.3350], 1.0000),
        (
            [2.0776, 0.0795, -1.1350],
            [0.9033, -0.0636, -0.5514],
            0.9082,
        ),
    ] {
        let found = difference(a, b);
        assert!((found - published).abs() < 5e-5, "{a:?} {b:?}: {found}");
    }
}

#[test]
fn contrast_is_from_1_to_21() {
    let [black, white] = ["#000", "#ffffff"].map(Light::parse);
    assert!((contrast(black, white) - 21.0).abs() < 1e-9);
    assert!((contrast(white, white) - 1.0).abs() < 1e-9);
    let [red, green] = ["#f00", "#00ff00"].map(Light::parse);
    assert!(difference(red.lab(), green.lab()) > 80.0);
}

//! Numbers for people: three or four significant digits, decimal prefixes, stable to the letter.

/// A count: exact below 100,000, then with a prefix.
pub fn count(number: u64) -> String {
    if number < 100_000 { number.to_string() } else { scaled(number as f64, "") }
}

/// Bytes with a decimal prefix.
pub fn bytes(number: u64) -> String {
    if number < 1000 { format!("{number} B") } else { scaled(number as f64, "B") }
}

fn scaled(mut number: f64, unit: &str) -> String {
    let mut prefix = "";
    for next in ["k", "M", "G", "T", "P", "E"] {
        // Rounding must not give 1000.
        if number < 999.5 {
            break;
        }
        (number, prefix) = (number / 1000.0, next);
    }
    let decimals = match number {
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$} {prefix}{unit}")
}

/// A span of time in its two largest units.
pub fn span(secs: f64) -> String {
    let whole = secs as u64;
    match whole {
        0..10 => format!("{secs:.1}s"),
        10..60 => format!("{whole}s"),
        60..3600 => format!("{}m {}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h {}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d {}h", whole / 86_400, whole / 3600 % 24),
    }
}

/// A part of a whole.
pub fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        for (number, text) in [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100 k"),
            (999_499, "999 k"),
            (999_500, "1.00 M"),
            (12_345_678, "12.3 M"),
            (u64::MAX, "18.4 E"),
        ] {
            assert_eq!(count(number), text);
        }
        assert_eq!([bytes(999), bytes(1000), bytes(1_500_000)], ["999 B", "1.00 kB", "1.50 MB"]);
    }

    #[test]
    fn spans_have_two_units() {
        assert_eq!(
            [0.04, 9.96, 59.9, 61.0, 3660.0, 90_000.0].map(span),
            ["0.0s", "10.0s", "59s", "1m 1s", "1h 1m", "1d 1h"]
        );
    }
}

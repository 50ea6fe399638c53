//! Durations as Prometheus writes them: `1s`, `500ms`, `1m30s`.

use std::time::Duration;

/// Reads a duration.
///
/// # Errors
/// When it is none; the text says how one is written.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write it like 1s, 500ms or 1m30s");
    let mut rest = text;
    let mut sum = Duration::ZERO;
    let mut coarser = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        // Each unit once, the coarser first.
        if milliseconds >= coarser {
            return Err(wrong());
        }
        coarser = milliseconds;
        let part = number.checked_mul(milliseconds).ok_or_else(wrong)?;
        sum = sum
            .checked_add(Duration::from_millis(part))
            .ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(sum)
    }
}

//! The dates of release files: `Fri, 30 Oct 2026 08:08:01 UTC` (Debian wiki, RepositoryFormat; RFC 5322 with UTC only).

use crate::time::days_since_1970;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds since 1970-01-01 00:00:00 UTC; `None` if the text is no such date, or one before that.
pub fn parse(text: &str) -> Option<u64> {
    let mut words = text.split_ascii_whitespace();
    let weekday = words.next()?;
    let (day, month, year, clock, zone) = (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    if !weekday.ends_with(',') || !matches!(zone, "UTC" | "GMT" | "+0000" | "Z") || words.next().is_some() {
        return None;
    }
    let month = MONTHS.iter().position(|name| *name == month)?;
    let mut parts = clock.split(':').map(|part| number(part, 59));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if hour > 23 || parts.next().is_some() {
        return None;
    }
    let days = days_since_1970(number(year, 9999)?, u64::try_from(month).ok()? + 1, number(day, 31)?)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn number(text: &str, most: u64) -> Option<u64> {
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok())?.filter(|number| *number <= most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_dates() {
        // Computed with `date -u -d '...' +%s`.
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", 0),
            ("Fri, 30 Oct 2026 08:08:01 UTC", 1_793_347_681),
            ("Thu, 29 Feb 2024 23:59:59 UTC", 1_709_251_199),
            ("Sat,  1 Mar 2025 00:00:00 +0000", 1_740_787_200),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
        for bad in [
            "",
            "Fri, 30 Oct 2026",
            "Fri, 30 Oct 2026 08:08:01 CET",
            "Fri, 30 Okt 2026 08:08:01 UTC",
            "Fri, 0 Jan 1970 0:0:0 UTC",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(Mon|Mo), [0-9]{1,3} (Jan|Dec|X) [0-9]{1,5} [0-9:]{1,9} (UTC|X)", noise in ".{0,40}") {
            let _ = (parse(&text), parse(&noise));
        }
    }
}

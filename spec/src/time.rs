//! Points in time as the formats write them: RFC 3339, UTC, whole seconds (`2027-06-30T00:00:00Z`). Nothing here knows what
//! time it is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds since 1970-01-01T00:00:00Z, at most the last second of the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

/// Text that is no such time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a time: write it like 2027-06-30T00:00:00Z")]
pub struct TimeError(String);

const DAY: u64 = 86_400;
/// 10000-01-01T00:00:00Z.
const END: u64 = 253_402_300_800;

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// A time from the seconds since 1970; `None` after the year 9999.
    pub fn from_seconds(seconds: u64) -> Option<Self> {
        (seconds < END).then_some(Self(seconds))
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// Midnight at the start of a day written as `2027-06-30`.
    pub fn of_day(text: &str) -> Result<Self, TimeError> {
        parse_day(text).and_then(|day| Self::from_seconds(day * DAY)).ok_or_else(|| TimeError(text.to_owned()))
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let parse = || {
            let (day, clock) = text.strip_suffix('Z')?.split_once('T')?;
            let mut parts = clock.split(':').map(|part| number(part, 2));
            let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
            if hour > 23 || minute > 59 || second > 59 || parts.next().is_some() {
                return None;
            }
            Self::from_seconds(parse_day(day)? * DAY + hour * 3600 + minute * 60 + second)
        };
        parse().ok_or_else(|| TimeError(text.to_owned()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0 / DAY);
        let second = self.0 % DAY;
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Days since 1970-01-01 of a day that exists, written `YYYY-MM-DD`.
fn parse_day(text: &str) -> Option<u64> {
    let mut parts = text.split('-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // A day that does not exist, such as 30 February, comes back as another one.
    days_since_1970(year, month, day).filter(|days| civil(*days) == (year, month, day))
}

fn number(text: &str, digits: usize) -> Option<u64> {
    (text.len() == digits && text.bytes().all(|c| c.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Days of the Gregorian calendar, counted with years that start in March so that the leap day is the last. Month and day
/// count from 1; `None` before 1970.
pub fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day.checked_sub(1)?;
    // 719468 days lie between 0000-03-01 and 1970-01-01.
    days.checked_sub(719_468)
}

/// The year, month and day of a count of days: the inverse of `days_since_1970`.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days / ERA, days % ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + carry, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times() {
        // date -u -d @SECONDS +%FT%TZ
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_600_000, "2026-11-25T09:46:40Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (END - 1, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp(seconds).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(seconds)));
        }
        assert_eq!(Timestamp::of_day("2000-02-29"), Ok(Timestamp(951_782_400)));
        assert_eq!(Timestamp::from_seconds(END), None);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2027-06-30",
            "2027-06-30T00:00:00",
            "2027-06-30T24:00:00Z",
            "2027-02-29T00:00:00Z",
            "2027-13-01T00:00:00Z",
            "2027-06-30T00:00:60Z",
            "2027-6-30T00:00:00Z",
            "+027-06-30T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2027-06-30T00:00:00+00:00",
            "2027-06-30t00:00:00z",
            "2027-06-30T00:00:00.0Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
        assert!(Timestamp::of_day("2027-02-30").is_err());
    }

    proptest! {
        #[test]
        fn every_second_comes_back(seconds in 0..END) {
            prop_assert_eq!(Timestamp(seconds).to_string().parse(), Ok(Timestamp(seconds)));
        }
        #[test]
        fn any_text_is_answered(text: String) {
            if let Ok(time) = text.parse::<Timestamp>() {
                prop_assert_eq!(time.to_string(), text);
            }
        }
    }
}

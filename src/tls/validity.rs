//! From when until when a certificate is valid. Pure.
//!
//! Only so much of X.509 is read as it takes to get there; whether a certificate is any good is for
//! rustls to say.

use jiff::{civil::DateTime, tz::TimeZone};

/// From when until when a certificate is valid, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: i64,
    /// The last second.
    pub not_after: i64,
}

impl Validity {
    /// Reads it from a certificate in DER form. `None` if it is none.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let mut outer = Der(certificate).enter(SEQUENCE)?;
        let mut signed = outer.enter(SEQUENCE)?;
        if signed.0.first() == Some(&VERSION) {
            signed.next()?;
        }
        signed.enter(INTEGER)?; // the serial number
        signed.enter(SEQUENCE)?; // the signature's algorithm
        signed.enter(SEQUENCE)?; // the issuer
        let mut validity = signed.enter(SEQUENCE)?;
        Some(Self { not_before: validity.time()?, not_after: validity.time()? })
    }
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// What is left of a run of DER elements.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Four bytes of length are more than any certificate takes.
            0x81..=0x84 => {
                let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn enter(&mut self, tag: u8) -> Option<Self> {
        let (found, content) = self.next()?;
        (found == tag).then_some(Self(content))
    }

    fn time(&mut self) -> Option<i64> {
        let (tag, text) = self.next()?;
        let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let (century, year) = match (tag, text.len()) {
            (UTC_TIME, 12) => (if text < "50" { 2000 } else { 1900 }, text.get(..2)?),
            (GENERALIZED_TIME, 14) => (0, text.get(..4)?),
            _ => return None,
        };
        digits.then_some(())?;
        let year: i16 = year.parse().ok()?;
        let two = |at: usize| text.get(text.len() - at..)?.get(..2)?.parse::<i8>().ok();
        let (month, day, hour) = (two(10)?, two(8)?, two(6)?);
        let time = DateTime::new(century + year, month, day, hour, two(4)?, two(2)?, 0).ok()?;
        Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate(from: i32, until: i32) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 2, 3);
        params.not_after = rcgen::date_time_ymd(until, 12, 31);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let validity = Validity::of(&certificate(1999, 2049)).unwrap();
        assert_eq!(validity, Validity { not_before: 918_000_000, not_after: 2_524_521_600 });
        // From 2050 on the year has four digits.
        assert_eq!(Validity::of(&certificate(2026, 2050)).unwrap().not_after, 2_556_057_600);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_bad(at in 0_usize..300, byte: u8, cut in 0_usize..400) {
            let mut bytes = certificate(2020, 2030);
            bytes.truncate(cut);
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
            Validity::of(&bytes);
        }
    }
}

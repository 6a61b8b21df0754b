//! Amounts as Kubernetes writes them: `100m`, `256Mi`, `1.5`, `1e3`.
//!
//! What is accepted is meant to be what the API server's `resource.Quantity` accepts, and CEL's
//! `isQuantity` with it; the tests hold both to a list of texts. Amounts are compared in billionths
//! of a unit, rounded up, as there; no floats.

/// An amount, as it compares with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    /// Billionths of a unit. What is larger than fits is as large as fits.
    nano: i128,
}

/// Binary amounts end here, as in the API server.
const MAX_BINARY_UNITS: u128 = i64::MAX as u128;
const NANO: u128 = 1_000_000_000;

/// What stands behind the digits.
enum Suffix {
    /// Times ten to this.
    Decimal(i32),
    /// Times two to this.
    Binary(u32),
}

impl Quantity {
    /// Reads an amount. `None` if the API server would not take it for one.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let (negative, unsigned) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, rest) = digits(unsigned);
        // `1.` and `.5` are amounts.
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => digits(rest),
            None => ("", rest),
        };
        let amount = match suffix_of(suffix)? {
            Suffix::Decimal(exponent) => decimal(whole, fraction, exponent),
            Suffix::Binary(exponent) => binary(whole, fraction, exponent),
        };
        let amount = i128::try_from(amount).unwrap_or(i128::MAX);
        Some(Self { nano: if negative { -amount } else { amount } })
    }

    /// Whether it is more than nothing.
    pub fn is_positive(self) -> bool {
        self.nano > 0
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn suffix_of(text: &str) -> Option<Suffix> {
    Some(match text {
        "n" => Suffix::Decimal(-9),
        "u" => Suffix::Decimal(-6),
        "m" => Suffix::Decimal(-3),
        "" => Suffix::Decimal(0),
        "k" => Suffix::Decimal(3),
        "M" => Suffix::Decimal(6),
        "G" => Suffix::Decimal(9),
        "T" => Suffix::Decimal(12),
        "P" => Suffix::Decimal(15),
        "E" => Suffix::Decimal(18),
        "Ki" => Suffix::Binary(10),
        "Mi" => Suffix::Binary(20),
        "Gi" => Suffix::Binary(30),
        "Ti" => Suffix::Binary(40),
        "Pi" => Suffix::Binary(50),
        "Ei" => Suffix::Binary(60),
        // Rust reads a sign and digits as Go does.
        _ => Suffix::Decimal(text.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

/// `whole.fraction` times ten to `exponent`, in billionths, rounded up.
fn decimal(whole: &str, fraction: &str, exponent: i32) -> u128 {
    // How many digits stand before the point, once it has moved.
    let point = whole.len() as i64 + i64::from(exponent) + 9;
    let mut amount: u128 = 0;
    for (place, digit) in (0_i64..).zip(whole.bytes().chain(fraction.bytes())) {
        if place >= point {
            if digit != b'0' {
                return amount.saturating_add(1);
            }
        } else {
            amount = amount.saturating_mul(10).saturating_add(u128::from(digit - b'0'));
        }
    }
    let zeros = point - (whole.len() + fraction.len()) as i64;
    if amount == 0 || zeros <= 0 {
        return amount;
    }
    let factor = u32::try_from(zeros).ok().and_then(|zeros| 10_u128.checked_pow(zeros));
    factor.map_or(u128::MAX, |factor| amount.saturating_mul(factor))
}

/// `whole.fraction` times two to `exponent`, in billionths, rounded up. Of the fraction eighteen
/// digits count: less than a millionth of any amount.
fn binary(whole: &str, fraction: &str, exponent: u32) -> u128 {
    let units = number(whole).saturating_mul(1 << exponent);
    if units >= MAX_BINARY_UNITS {
        return MAX_BINARY_UNITS * NANO;
    }
    let (counted, rest) = fraction.split_at(fraction.len().min(18));
    let one = 10_u128.pow(counted.len() as u32);
    let part = number(counted) << exponent;
    let nano = ((part % one) * NANO).div_ceil(one) + u128::from(rest.bytes().any(|d| d != b'0'));
    ((units + part / one) * NANO + nano).min(MAX_BINARY_UNITS * NANO)
}

fn number(digits: &str) -> u128 {
    digits.bytes().fold(0, |number: u128, digit| {
        number.saturating_mul(10).saturating_add(u128::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nano(text: &str) -> i128 {
        Quantity::parse(text).unwrap_or_else(|| panic!("{text} is an amount")).nano
    }

    #[test]
    fn amounts_mean_what_they_mean_to_kubernetes() {
        for (text, expected) in [
            ("0", 0),
            ("1", 1_000_000_000),
            ("+1", 1_000_000_000),
            ("-1", -1_000_000_000),
            ("007", 7_000_000_000),
            ("100m", 100_000_000),
            ("1500u", 1_500_000),
            ("3n", 3),
            ("0.1n", 1),
            ("0.0000000001", 1),
            ("-0.0000000001", -1),
            ("1.5", 1_500_000_000),
            ("1.", 1_000_000_000),
            (".5", 500_000_000),
            ("1e3", 1_000_000_000_000),
            ("1E3", 1_000_000_000_000),
            ("1e+3", 1_000_000_000_000),
            ("1e-3", 1_000_000),
            ("1e-30", 1),
            ("0e99999", 0),
            ("1k", 1_000_000_000_000),
            ("1Ki", 1_024_000_000_000),
            ("0.5Ki", 512_000_000_000),
            ("1.5Gi", 1_610_612_736_000_000_000),
            ("0.0000000001Ki", 103),
            // Signs and points without digits, and suffixes alone, are zero.
            ("+", 0),
            (".", 0),
            ("m", 0),
        ] {
            assert_eq!(nano(text), expected, "{text}");
        }
        assert_eq!(nano("1Gi"), nano("1024Mi"));
        assert_eq!(nano("1000m"), nano("1"));
        assert_eq!(nano("9Ei"), nano("8Ei"), "binary amounts have an end");
        assert!(nano("1e999") > nano("1E"));
        assert!(nano("1e-999") > 0);
    }

    #[test]
    fn what_kubernetes_refuses_is_no_amount() {
        for text in [
            "",
            " ",
            "1 ",
            " 1",
            "1 Mi",
            "Mib",
            "1MiB",
            "1mi",
            "1K",
            "1kb",
            "1KI",
            "1e",
            "1e+",
            "e",
            "1e1.5",
            "1,5",
            "1..5",
            "1.5.5",
            "--1",
            "1-",
            "0x10",
            "1_000",
            "one",
            "100M i",
            "1Mi\n",
            "∞",
            "١",
            "1µ",
            "1e99999999999",
        ] {
            assert_eq!(Quantity::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "\\PC{0,40}", digits in "[-+.0-9eEinumkKMGTP]{0,60}") {
            Quantity::parse(&text);
            Quantity::parse(&digits);
        }

        #[test]
        fn amounts_are_ordered_as_numbers_are(a in 0_u32.., b in 0_u32..) {
            for suffix in ["n", "m", "", "k", "E", "Ki", "Mi", "e3"] {
                let of = |number: u32| Quantity::parse(&format!("{number}{suffix}")).unwrap();
                prop_assert_eq!(of(a).cmp(&of(b)), a.cmp(&b));
            }
        }
    }
}

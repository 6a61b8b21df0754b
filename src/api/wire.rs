//! Reads the protobuf wire format of values: field by field, without copying. Pure.

use std::fmt;

/// The fields of one message, in the order in which they were written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

/// What a field holds, as far as the wire tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'a> {
    /// An integer, a truth value, or a member of an enum.
    Varint(u64),
    /// Eight bytes.
    Fixed64([u8; 8]),
    /// Four bytes.
    Fixed32([u8; 4]),
    /// Bytes, text, a message, or a packed list of numbers.
    Bytes(&'a [u8]),
}

/// These bytes are not the message that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a serialized feast.types.Value")
    }
}

impl std::error::Error for Malformed {}

impl<'a> Fields<'a> {
    /// The last field, which is the one that counts where all fields are members of one `oneof`.
    pub(super) fn last_of(self) -> Result<Option<(u32, Wire<'a>)>, Malformed> {
        let mut last = None;
        for field in self {
            last = Some(field?);
        }
        Ok(last)
    }

    fn read(&mut self) -> Result<(u32, Wire<'a>), Malformed> {
        let key = u32::try_from(take_varint(&mut self.0)?).map_err(|_| Malformed)?;
        let number = key >> 3;
        if number == 0 {
            return Err(Malformed);
        }
        let wire = match key & 7 {
            0 => Wire::Varint(take_varint(&mut self.0)?),
            1 => Wire::Fixed64(take_array(&mut self.0)?),
            2 => {
                let length = usize::try_from(take_varint(&mut self.0)?).map_err(|_| Malformed)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
                self.0 = rest;
                Wire::Bytes(bytes)
            }
            5 => Wire::Fixed32(take_array(&mut self.0)?),
            // Groups: no message of Feast has any.
            _ => return Err(Malformed),
        };
        Ok((number, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Takes a varint off the front.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        // The tenth byte has room for one bit.
        if place == 9 && *byte > 1 {
            return Err(Malformed);
        }
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            *bytes = &bytes[place + 1..];
            return Ok(number);
        }
    }
    Err(Malformed)
}

/// Takes as many bytes off the front as the array has.
pub(super) fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (array, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
    *bytes = rest;
    Ok(*array)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wire_type_is_read() {
        let bytes = b"\x08\xac\x02\x11\x01\0\0\0\0\0\0\0\x1a\x02ab\x25\x01\0\0\0";
        let fields: Vec<_> = Fields(bytes).map(Result::unwrap).collect();
        assert_eq!(
            fields,
            [
                (1, Wire::Varint(300)),
                (2, Wire::Fixed64([1, 0, 0, 0, 0, 0, 0, 0])),
                (3, Wire::Bytes(b"ab")),
                (4, Wire::Fixed32([1, 0, 0, 0])),
            ]
        );
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_refused_and_ends_the_reading() {
        for bytes in [
            &b"\x08"[..],
            b"\x08\x80",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x11\x01",
            b"\x12\x03ab",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x25\x01",
            b"\x0b",
            b"\x00\x00",
        ] {
            let fields: Vec<_> = Fields(bytes).collect();
            assert_eq!(fields, [Err(Malformed)], "{bytes:x?}");
        }
    }

    #[test]
    fn ten_bytes_make_the_largest_integer() {
        let mut bytes = &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01rest"[..];
        assert_eq!(take_varint(&mut bytes), Ok(u64::MAX));
        assert_eq!(bytes, b"rest");
    }
}

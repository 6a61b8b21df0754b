//! Fields of a protobuf message, without knowing the message.

/// Why bytes are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// They end within a field.
    #[error("it ends within a field")]
    Truncated,
    /// A number takes more than 64 bits.
    #[error("it has a number of more than 64 bits")]
    LongNumber,
    /// A tag names no field, or a wire type that is not in use.
    #[error("it has a field with a tag that does not exist")]
    BadTag,
}

/// A field of any message.
pub(super) struct Field<'a> {
    pub(super) number: u32,
    pub(super) payload: Payload<'a>,
}

/// What a field holds. Of numbers with a fixed width, only that there is one.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Fixed64,
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    /// Takes the next field off `rest`, which must not be empty.
    #[inline]
    pub(super) fn read(rest: &mut &'a [u8]) -> Result<Self, WireError> {
        let tag = read_varint(rest)?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::BadTag)?;
        if number == 0 || number > MAX_NUMBER {
            return Err(WireError::BadTag);
        }
        let payload = match tag & 7 {
            0 => Payload::Varint(read_varint(rest)?),
            1 => take(rest, 8).map(|_| Payload::Fixed64)?,
            2 => {
                let length = read_varint(rest)?;
                let length = usize::try_from(length).map_err(|_| WireError::Truncated)?;
                Payload::Bytes(take(rest, length)?)
            }
            5 => take(rest, 4).map(|_| Payload::Fixed32)?,
            // Groups, which were given up before Feast began, and two that never were.
            _ => return Err(WireError::BadTag),
        };
        Ok(Self { number, payload })
    }
}

const MAX_NUMBER: u32 = (1 << 29) - 1;

/// Takes a number off `rest`.
#[inline]
pub(super) fn read_varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    // Most are tags and lengths of one byte.
    if let [byte @ ..0x80, after @ ..] = rest {
        let number = u64::from(*byte);
        *rest = after;
        return Ok(number);
    }
    let mut number = 0;
    for (index, byte) in rest.iter().enumerate() {
        if index == 9 && *byte > 1 {
            return Err(WireError::LongNumber);
        }
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Ok(number);
        }
    }
    Err(WireError::Truncated)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], WireError> {
    let (taken, left) = rest.split_at_checked(length).ok_or(WireError::Truncated)?;
    *rest = left;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_64_bits_at_most() {
        let read = |mut bytes: &[u8]| read_varint(&mut bytes);
        assert_eq!(read(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Ok(u64::MAX));
        let long = Err(WireError::LongNumber);
        assert_eq!(read(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), long);
        assert_eq!(read(b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), long);
        assert_eq!(read(b"\x80\x80"), Err(WireError::Truncated));
    }

    #[test]
    fn tags_that_do_not_exist_are_refused() {
        let read = |mut bytes: &[u8]| Field::read(&mut bytes).map(|field| field.number);
        assert_eq!(read(b"\x08\x01"), Ok(1));
        assert_eq!(read(b"\x00\x01"), Err(WireError::BadTag), "field 0");
        assert_eq!(read(b"\x0b\x0c"), Err(WireError::BadTag), "a group");
        assert_eq!(read(b"\x0f\x01"), Err(WireError::BadTag), "wire type 7");
        assert_eq!(read(b"\x80\x80\x80\x80\x10\x01"), Err(WireError::BadTag), "field 2^29");
    }
}

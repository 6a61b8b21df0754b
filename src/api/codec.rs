//! How online requests come in and answers go out over gRPC: requests decoded by prost, answers
//! written once, into the buffer that leaves.

use prost::Message as _;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::message::Message;
use crate::pb::serving::GetOnlineFeaturesRequest;

/// The codec of `GetOnlineFeatures`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OnlineCodec;

impl Codec for OnlineCodec {
    type Encode = Message;
    type Decode = GetOnlineFeaturesRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for OnlineCodec {
    type Item = Message;
    type Error = Status;

    fn encode(&mut self, message: Message, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(message.encoded_len());
        message.encode(out);
        Ok(())
    }
}

impl Decoder for OnlineCodec {
    type Item = GetOnlineFeaturesRequest;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        // Tonic's own codec says INTERNAL, which is what larder says of its own faults.
        GetOnlineFeaturesRequest::decode(bytes).map(Some).map_err(|error| {
            Status::invalid_argument(format!("not a GetOnlineFeaturesRequest: {error}"))
        })
    }
}

//! What goes wrong with DynamoDB, and who can mend it: time, or an operator.
//!
//! An answer is judged by its code. Its text differs between services that speak the same.

use std::{error::Error, fmt, sync::Arc};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use super::StoreError;

/// A failure, with what the client library says of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The service answered with an error.
    #[error("dynamodb answered `{code}`{of}: {message}")]
    Answered { code: String, of: Of, message: String },
    /// It cannot be reached, or broke off.
    #[error("dynamodb cannot be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// It answered with no error of its own, and with nothing that it should answer.
    #[error("dynamodb did not answer as DynamoDB does (HTTP status {0})")]
    Foreign(u16),
    /// Keys were left out of every answer, or the service said that there is too much to do.
    #[error("dynamodb throttles: its throughput for reads is exceeded")]
    Throttled,
    /// The answer has what was not asked for, so that it cannot say what there is not.
    #[error("dynamodb's answer does not fit what table `{0}` was asked for")]
    Unfitting(Arc<str>),
    /// It answered something else than items.
    #[error("dynamodb answered without `Responses`")]
    NoResponses,
    /// There are no credentials.
    #[error(
        "no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, \
         or a role of the pod or the machine (a local endpoint takes any)"
    )]
    NoCredentials(#[source] CredentialsError),
    /// Whoever has them does not give them.
    #[error("the AWS credentials cannot be had")]
    CredentialsFailed(#[source] CredentialsError),
    /// Whoever has them takes too long.
    #[error("the AWS credentials did not come in time")]
    CredentialsSlow,
}

/// The tables that were asked.
#[derive(Debug)]
pub(super) struct Of(pub(super) Vec<Arc<str>>);

/// Why a call has no items.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is too much to do, for now.
    Throttled,
    /// One of the tables may be the cause, or all of them.
    Tables(StoreError),
    /// The signature was refused: the credentials may have been replaced.
    Credentials(StoreError),
    /// Nothing of it is a table's fault.
    Call(StoreError),
}

impl Failure {
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Throttled => unavailable(Fault::Throttled),
            Self::Tables(error) | Self::Credentials(error) | Self::Call(error) => error,
        }
    }
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [] => Ok(()),
            [table] => write!(f, " for table `{table}`"),
            tables => write!(f, " for {} tables", tables.len()),
        }
    }
}

/// The error for what may mend itself.
pub(super) fn unavailable(fault: Fault) -> StoreError {
    StoreError::Unavailable(Arc::new(fault))
}

/// Sorts a call that failed.
pub(super) fn of_call<E>(error: SdkError<E>, tables: Vec<Arc<str>>) -> Failure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    if let SdkError::TimeoutError(_) = error {
        return Failure::Call(StoreError::TimedOut);
    }
    let status = error.raw_response().map(|response| response.status().as_u16());
    if let (SdkError::ServiceError(answer), Some(status)) = (&error, status) {
        return match answer.err().code() {
            Some(code) => {
                let message = answer.err().message().unwrap_or_default();
                of_answer(code, status, message, tables)
            }
            None => Failure::Call(unavailable(Fault::Foreign(status))),
        };
    }
    if let (SdkError::ResponseError(_), Some(status @ 300..)) = (&error, status) {
        return Failure::Call(unavailable(Fault::Foreign(status)));
    }
    // Its source is what happened: it says itself only that something did.
    let source = error.into_source().unwrap_or_else(|error| error.into());
    Failure::Call(unavailable(Fault::Unreachable(source)))
}

/// Sorts an answer of the service.
fn of_answer(code: &str, status: u16, message: &str, tables: Vec<Arc<str>>) -> Failure {
    let fault = |of| {
        let (code, message) = (code.to_owned(), message.to_owned());
        Arc::new(Fault::Answered { code, of: Of(of), message })
    };
    match code {
        "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded" => Failure::Throttled,
        "ResourceNotFoundException"
        | "AccessDeniedException"
        | "AccessDenied"
        | "ValidationException" => Failure::Tables(StoreError::Refused(fault(tables))),
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "InvalidSignatureException"
        | "IncompleteSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken" => Failure::Credentials(StoreError::Refused(fault(vec![]))),
        _ if status == 429 => Failure::Throttled,
        _ if status >= 500 => Failure::Call(StoreError::Unavailable(fault(vec![]))),
        _ => Failure::Tables(StoreError::Refused(fault(tables))),
    }
}

/// Sorts a failed attempt to get credentials.
pub(super) fn of_credentials(error: CredentialsError) -> StoreError {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => {
            StoreError::Refused(Arc::new(Fault::NoCredentials(error)))
        }
        CredentialsError::InvalidConfiguration(_) => {
            StoreError::Refused(Arc::new(Fault::CredentialsFailed(error)))
        }
        _ => unavailable(Fault::CredentialsFailed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_time_mends_is_an_outage_and_the_rest_is_refused() {
        let tables = || vec![Arc::from("t")];
        let sort = |code, status| of_answer(code, status, "why", tables());
        for code in [
            "ProvisionedThroughputExceededException",
            "ThrottlingException",
            "RequestLimitExceeded",
        ] {
            assert!(matches!(sort(code, 400), Failure::Throttled), "{code}");
            assert!(sort(code, 400).into_error().is_outage());
        }
        assert!(matches!(sort("New", 429), Failure::Throttled));
        for (code, status) in [("InternalServerError", 500), ("ServiceUnavailable", 503)] {
            assert!(matches!(sort(code, status), Failure::Call(StoreError::Unavailable(_))));
        }
        for code in ["ResourceNotFoundException", "AccessDeniedException", "ValidationException"] {
            let Failure::Tables(error) = sort(code, 400) else { panic!("{code}") };
            let text = error.chain();
            assert!(
                text.contains(&format!("dynamodb answered `{code}` for table `t`: why")),
                "{text}"
            );
            assert!(matches!(error, StoreError::Refused(_)));
        }
        for code in ["UnrecognizedClientException", "ExpiredTokenException"] {
            let Failure::Credentials(error) = sort(code, 400) else { panic!("{code}") };
            assert!(matches!(error, StoreError::Refused(_)));
        }
    }

    #[test]
    fn without_credentials_the_places_for_them_are_named() {
        let error = of_credentials(CredentialsError::not_loaded("nowhere"));
        assert!(matches!(error, StoreError::Refused(_)));
        assert!(error.chain().contains("AWS_ACCESS_KEY_ID"), "{}", error.chain());
        assert!(of_credentials(CredentialsError::provider_error("down")).is_outage());
    }
}

//! What every store promises, on real databases; and what each promises besides.
//!
//! Needs `redis-server`, `redis-cli` and `java` on the PATH, Cassandra in a folder that `CASSANDRA_HOME`
//! names, and DynamoDB Local in one that `DYNAMODB_LOCAL_HOME` names.

#[cfg(feature = "cassandra")]
mod cassandra;
#[cfg(feature = "cassandra")]
mod cassandra_proxy;
#[cfg(feature = "cassandra")]
mod cassandra_server;
mod contract;
#[cfg(feature = "dynamodb")]
mod dynamodb;
#[cfg(feature = "dynamodb")]
mod dynamodb_front;
#[cfg(feature = "dynamodb")]
mod dynamodb_server;
mod golden;
mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod redis_cluster;
#[cfg(feature = "redis")]
mod redis_nodes;
#[cfg(feature = "redis")]
mod redis_scripted;
#[cfg(all(feature = "redis", feature = "tls"))]
mod redis_secure;
#[cfg(feature = "redis")]
mod redis_sentinel;
#[cfg(feature = "redis")]
mod redis_server;
#[cfg(feature = "sqlite")]
mod sqlite;
mod world;

/// The contract as tests of one store, in a world that `$world` makes.
macro_rules! contract_tests {
    ($world:expr, $($promise:ident)*) => {
        mod promises {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    crate::contract::$promise(&mut $world).await;
                }
            )*
        }
    };
    ($world:expr) => {
        contract_tests! {
            $world,
            rows_come_in_the_order_of_views_and_keys
            nulls_and_absences_are_told_apart
            a_corrupt_value_fails_its_row_only
            a_read_of_nothing_has_no_rows
            many_reads_at_once_get_their_own_rows
            dropped_reads_harm_no_other
            a_store_that_goes_down_fails_at_once_and_recovers
            a_store_that_is_down_at_first_is_found_later
        }
    };
}
pub(crate) use contract_tests;

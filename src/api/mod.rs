//! What is seen from outside: gRPC, HTTP, and the admin endpoints.

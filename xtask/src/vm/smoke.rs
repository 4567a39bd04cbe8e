//! A few tests that together load every program, write every table and read every field of the kernel's structures: what
//! differs between kernels shows here first.

/// Whether a test is one of them, by its whole name.
pub(super) fn has(id: &str) -> bool {
    TESTS.contains(&id)
}

const TESTS: [&str; 19] = [
    // Each program, and what the daemon itself says of the host.
    "check::on_a_fit_host_everything_is_tried_and_nothing_stays",
    "kernel_border::every_program_loads_and_attaches_on_this_kernel",
    // connect4, connect6, getpeername4, getpeername6.
    "translate::a_program_that_knows_nothing_sees_the_address_it_dialled",
    "translate::a_v4_vip_is_refused_where_all_endpoints_are_v6",
    "translate::a_v6_vip_reaches_a_v4_endpoint_by_its_mapped_address",
    "translate::clients_in_other_network_namespaces_are_balanced_too",
    "untouched::addresses_that_are_no_service_are_left_alone",
    // sock_ops and sk_err, sock_release, write_seq and skc_flags, skc_ipv6only.
    "counters::refused_connects_are_failures_of_the_endpoint",
    "bytes::bytes_lost_on_the_way_are_not_counted_as_sent",
    "bytes::bytes_of_v4_connections_are_exact",
    "counters::a_connect_without_a_route_is_not_held_against_the_endpoint",
    "deadlines::a_connect_into_a_black_hole_times_out_when_it_was_configured_to",
    "translate::a_v6only_socket_gets_v6_endpoints_only",
    // iter/tcp, and INET_DIAG where it is refused.
    "kernel_border::live_connections_are_seen_with_and_without_the_iterator",
    "connections::a_connection_is_listed_while_it_is_open_in_the_shape_of_the_contract",
    // Sockets in maps, and listeners in other namespaces.
    "capture::clients::a_client_is_sent_to_the_listener_of_its_family_and_sees_the_vip",
    "capture::places::every_worker_listens_wherever_there_are_clients_and_nowhere_else",
    // Links that are updated in place, pins that are found again.
    "lifecycle::counters_survive_a_restart_and_count_on_while_it_is_away",
    // Compare-and-swap of words that both sides write.
    "breaker_in_kernel::every_random_story_has_the_same_words_in_the_kernel_as_on_the_host",
];

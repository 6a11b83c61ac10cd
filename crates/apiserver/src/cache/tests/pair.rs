//! Two API servers on one store, on the simulator: addresses and ports have one owner each, and none is leaked.

use crate::cache::hooks::Mutant;
use crate::cache::sim::Pair;
use store::testing::sim::trial;

store::simulation! { Pair, seeds: 60, boundaries: 1, bound: 200, mutants: {
    an_address_that_is_not_given_back: Mutant::AddressNotReleased,
    an_address_whose_claim_was_anothers: Mutant::ClaimOfStaleMemory,
    a_range_that_was_full: Mutant::FullOfStaleMemory,
    an_address_given_out_twice: Mutant::AddressUnguarded,
    ports_claimed_over_others: Mutant::PortsUnguarded,
    a_dry_run_of_a_change_that_claims: Mutant::DryRunWrites,
} }

#[test]
fn much_happens_between_two_servers() {
    let total = trial::total::<Pair>(60..80);
    assert!(total.given > 300 && total.full > 5 && total.denied > 50 && total.crashes > 5, "{total:?}");
}

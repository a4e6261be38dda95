package fedavg

import "fmt"

// FLTrust trusts one update, which the server made of examples of its own. Each vector counts by the cosine of its angle to
// the trusted one, and not at all if that is negative, and is scaled to the trusted one's norm (Cao et al. 2021, "FLTrust:
// Byzantine-robust Federated Learning via Trust Bootstrapping", §IV). Where nobody is trusted nothing moves. It holds with
// any number of liars. Weights do not count.
type FLTrust struct{}

// Check implements Rule.
func (FLTrust) Check(updates int) error { return atLeast("fltrust", 0, updates, majority) }

// Needs implements Rule.
func (FLTrust) Needs() RuleNeeds { return RuleNeeds{Trusted: true} }

// Combine implements Rule.
func (FLTrust) Combine(c *Combination) error {
	if len(c.Trusted) != len(c.Out) {
		return fmt.Errorf("the trusted update has %d coordinates, want %d", len(c.Trusted), len(c.Out))
	}
	own := norm(c.Trusted)
	shares, total := make([]float64, len(c.Vectors)), 0.
	for i, v := range c.Vectors {
		n, d := norm(v), dot(v, c.Trusted)
		if d <= 0 || n == 0 {
			continue
		}
		trust := d / float64(n*own)
		shares[i] = float64(trust*own) / n
		total += trust
	}
	if total == 0 {
		return nil
	}
	for i := range shares {
		shares[i] /= total
	}
	weighted(c.Vectors, shares, c.Out)
	return nil
}

package simulate

import (
	"math"
	"math/rand/v2"

	"choir.example/internal/seeds"
)

// device is what a node is by nature. It is drawn from the run's seed and the node's name alone.
type device struct {
	train    float64 // seconds an example and epoch
	down, up float64 // seconds a byte
	latency  float64 // seconds each way
	zone     float64 // hours that its clock is ahead
}

// deviceOf draws a node's nature. What is not asked for takes its chance all the same, so that one setting does not change
// what another means.
func (s *FleetSettings) deviceOf(seed uint64, name string) (d device) {
	rng := rand.New(rand.NewPCG(seeds.Derive("choir/device/v1", seed, name, 0), 0))
	speed, bandwidth := math.Exp(s.Speed.Spread*rng.NormFloat64()), math.Exp(s.Bandwidth.Spread*rng.NormFloat64())
	speed *= s.factor(rng.Float64())
	zones := s.Availability.Zones
	if zones == 0 {
		zones = 24
	}
	d.zone = math.Floor(rng.Float64()*float64(zones)) * 24 / float64(zones)
	d.latency = s.Bandwidth.Latency
	d.train = inverse(s.Speed.Examples * speed)
	d.down, d.up = inverse(s.Bandwidth.Down*bandwidth), inverse(s.Bandwidth.Up*bandwidth)
	return d
}

// factor is the factor of the class that a number from 0 to 1 falls into.
func (s *FleetSettings) factor(x float64) float64 {
	for _, c := range s.Speed.Classes {
		if x -= c.Share; x < 0 {
			return c.Factor
		}
	}
	return 1
}

// inverse is 1/v; a speed of 0 is none that matters.
func inverse(v float64) float64 {
	if v == 0 {
		return 0
	}
	return 1 / v
}

// transfer is how long the model takes to a node and its update back.
func (d device) transfer(load payload) float64 {
	return 2*d.latency + d.down*float64(load.down) + d.up*float64(load.up)
}

// payload is what goes to a node in a round and comes back.
type payload struct{ down, up int64 }

// there reports whether a node can take part at a time, in seconds from the first midnight of zone 0.
func (s AvailabilitySettings) there(seed uint64, name string, d device, clock float64) bool {
	if s.always() {
		return true
	}
	hour := math.Floor(clock / 3600)
	own := math.Mod(hour+d.zone, 24)
	share := s.Day
	if own >= 22 || own < 6 {
		share = s.Night
	}
	return chance("choir/there/v1", seed, name, uint64(hour)) < share
}

// chance is a number in [0, 1) for one use.
func chance(domain string, seed uint64, name string, number uint64) float64 {
	return float64(seeds.Derive(domain, seed, name, number)>>11) / (1 << 53)
}

package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"math"

	"choir.example/simulate/attack"
)

// FleetSettings say how nodes behave that hold the data: who is not heard of, who does less than asked, and how long all
// of it takes on a virtual clock, which begins at midnight. The zero value is a fleet that does all it is asked, at once.
type FleetSettings struct {
	Dropout    float64 `json:"dropout,omitempty" yaml:"dropout"`       // share of a cohort that is never heard of again in a round
	Stragglers float64 `json:"stragglers,omitempty" yaml:"stragglers"` // share of a cohort that does not manage all local epochs
	Partial    bool    `json:"partial,omitempty" yaml:"partial"`       // what those manage who are too slow for all epochs counts; otherwise they are late

	OverSelection float64 `json:"over_selection,omitempty" yaml:"over_selection"` // so many more are drawn, as a share of the cohort; the first of them count
	Deadline      float64 `json:"deadline,omitempty" yaml:"deadline"`             // seconds that a round waits; 0: until all are there who will be
	Interval      float64 `json:"interval,omitempty" yaml:"interval"`             // seconds from one round's beginning to the next one's, at least
	Least         int     `json:"least,omitempty" yaml:"least" usual:"1"`         // updates without which a round is skipped; usually 1

	Speed        SpeedSettings        `json:"speed" yaml:"speed"`
	Bandwidth    BandwidthSettings    `json:"bandwidth" yaml:"bandwidth"`
	Availability AvailabilitySettings `json:"availability" yaml:"availability" usual:"nodes that are always there"`

	Liars attack.Settings `json:"liars" yaml:"liars"` // who sends what is not so, and how
}

// SpeedSettings say how fast nodes train. A node's speed is its own, in all rounds.
type SpeedSettings struct {
	Examples float64       `json:"examples,omitempty" yaml:"examples"` // a second, of a usual node; 0: training takes no time
	Spread   float64       `json:"spread,omitempty" yaml:"spread"`     // deviation of the speeds' logarithms
	Classes  []DeviceClass `json:"classes,omitempty" yaml:"classes"`   // of devices; those whom none has are of factor 1
}

// DeviceClass is a share of the nodes that are faster or slower than usual.
type DeviceClass struct {
	Share  float64 `json:"share,omitempty" yaml:"share"`   // of the fleet, by chance
	Factor float64 `json:"factor,omitempty" yaml:"factor"` // of the speed
}

// BandwidthSettings say how long a node takes for the model and its update. A direction without a number takes no time.
type BandwidthSettings struct {
	Down    float64 `json:"down,omitempty" yaml:"down"`       // bytes a second, of a usual node
	Up      float64 `json:"up,omitempty" yaml:"up"`           // bytes a second
	Spread  float64 `json:"spread,omitempty" yaml:"spread"`   // deviation of the bandwidths' logarithms; a node has both ways alike
	Latency float64 `json:"latency,omitempty" yaml:"latency"` // seconds, each way
}

// AvailabilitySettings say when nodes can take part: hour by hour, by chance, and more often by night or by day. Night is
// from 22 to 6 o'clock of a node's own time, which its time zone makes.
type AvailabilitySettings struct {
	Day   float64 `json:"day,omitempty" yaml:"day"`                // share of the nodes that are there in an hour of their day
	Night float64 `json:"night,omitempty" yaml:"night"`            // the same by night. Both 0: nodes are always there
	Zones int     `json:"zones,omitempty" yaml:"zones" usual:"24"` // time zones, evenly around the earth, that nodes are spread over by chance; usually 24
}

// timed reports whether anything takes time.
func (s *FleetSettings) timed() bool {
	return s.Speed.Examples > 0 || s.Bandwidth.Down > 0 || s.Bandwidth.Up > 0 || s.Bandwidth.Latency > 0
}

// always reports whether nodes are always there.
func (s AvailabilitySettings) always() bool { return s.Day == 0 && s.Night == 0 }

// check names the first setting that cannot be, or that would do nothing.
func (s *FleetSettings) check() error {
	if err := s.checkNumbers(); err != nil {
		return err
	}
	shares := 0.0
	for _, c := range s.Speed.Classes {
		shares += c.Share
	}
	switch {
	case shares > 1+1e-9:
		return fmt.Errorf("fleet: speed: the classes' shares sum to %v, want at most 1", shares)
	case s.Speed.Examples == 0 && (s.Speed.Spread != 0 || s.Speed.Classes != nil):
		return errors.New("fleet: speed: spread and classes change nothing without examples, a usual node's in a second")
	case s.Bandwidth.Down == 0 && s.Bandwidth.Up == 0 && s.Bandwidth.Spread != 0:
		return errors.New("fleet: bandwidth: spread changes nothing without up or down, a usual node's bytes in a second")
	case s.Deadline > 0 && !s.timed():
		return errors.New("fleet: deadline: nothing takes time; want speed or bandwidth as well, or no deadline")
	case s.Partial && s.Stragglers == 0 && s.Deadline == 0:
		return errors.New("fleet: partial: nobody does less than all epochs; want stragglers or a deadline as well, or not partial")
	case !s.Availability.always() && !s.timed() && s.Interval == 0:
		return errors.New("fleet: availability: the clock stands still; want speed, bandwidth or interval as well, or no availability")
	case s.Availability.always() && s.Availability.Zones != 0:
		return errors.New("fleet: availability: zones change nothing without day or night, the shares that are there")
	}
	return nil
}

// checkNumbers names the first that is out of its range.
func (s *FleetSettings) checkNumbers() error {
	type number struct {
		name        string
		value       float64
		least, most float64
	}
	numbers := []number{
		{"dropout", s.Dropout, 0, 1}, {"stragglers", s.Stragglers, 0, 1}, {"over_selection", s.OverSelection, 0, 10},
		{"deadline", s.Deadline, 0, 1e9}, {"interval", s.Interval, 0, 1e9}, {"least", float64(cmp.Or(s.Least, 1)), 1, math.MaxInt32},
		{"speed: examples", s.Speed.Examples, 0, 1e12}, {"speed: spread", s.Speed.Spread, 0, 5},
		{"bandwidth: down", s.Bandwidth.Down, 0, 1e15}, {"bandwidth: up", s.Bandwidth.Up, 0, 1e15},
		{"bandwidth: spread", s.Bandwidth.Spread, 0, 5}, {"bandwidth: latency", s.Bandwidth.Latency, 0, 1e6},
		{"availability: day", s.Availability.Day, 0, 1}, {"availability: night", s.Availability.Night, 0, 1},
		{"availability: zones", float64(cmp.Or(s.Availability.Zones, 1)), 1, 24},
	}
	for i, c := range s.Speed.Classes {
		numbers = append(numbers, number{fmt.Sprintf("speed: class %d: share", i+1), c.Share, 0, 1}, number{fmt.Sprintf("speed: class %d: factor", i+1), c.Factor, 1e-6, 1e6})
	}
	for _, n := range numbers {
		if !(n.value >= n.least && n.value <= n.most) {
			return fmt.Errorf("fleet: %s is %v, want %.10g to %.10g", n.name, n.value, n.least, n.most)
		}
	}
	return nil
}

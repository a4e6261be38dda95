package simulate

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/simulate/partition"
)

// fleetOf is an experiment that is mustered and not run: 40 nodes of 20 examples, of which a round wants 10, 5 epochs.
func fleetOf(s FleetSettings) Experiment {
	x := small()
	x.Partition, x.Cohort, x.Fleet, x.Local.Epochs = partition.Settings{Nodes: 40}, CohortSettings{Nodes: 10}, s, 5
	return x
}

func mustered(t *testing.T, s FleetSettings, seed uint64) *trial {
	t.Helper()
	tr, err := newTrial(fleetOf(s), RunConfig{Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// everything is a fleet in which all settings matter.
var everything = FleetSettings{
	Dropout: .1, Stragglers: .3, Partial: true, OverSelection: .5, Deadline: 40, Interval: 30, Least: 2,
	Speed:        SpeedSettings{Examples: 5, Spread: .5, Classes: []DeviceClass{{.2, .25}, {.1, 4}}},
	Bandwidth:    BandwidthSettings{Down: 1e4, Up: 1e3, Spread: .3, Latency: .1},
	Availability: AvailabilitySettings{Day: .3, Night: .9},
}

// Who takes part follows from seed and round alone: rounds asked for in any order, again, or by another trial are the same.
func TestMusterIsAFunction(t *testing.T) {
	a, b := mustered(t, everything, 3), mustered(t, everything, 3)
	var want []muster
	for round := 1; round <= 30; round++ {
		want = append(want, *a.muster(round))
	}
	for _, round := range []int{17, 17, 3, 30, 1} {
		if got := *b.muster(round); !reflect.DeepEqual(got, want[round-1]) {
			t.Errorf("round %d: %+v, want %+v", round, got, want[round-1])
		}
	}
	if other := mustered(t, everything, 4).muster(5); reflect.DeepEqual(other.drawn, want[4].drawn) {
		t.Error("another seed drew the same")
	}
	fates := map[fate]int{}
	for _, m := range want {
		for _, d := range m.drawn {
			fates[d.fate]++
		}
		if !slices.IsSortedFunc(m.drawn, func(a, b invitee) int { return strings.Compare(a.name, b.name) }) {
			t.Errorf("round %d is not in order of names", m.number)
		}
		if m.end < m.begin+30 {
			t.Errorf("round %d takes %v seconds, want at least the interval", m.number, m.end-m.begin)
		}
	}
	if fates[heard] == 0 || fates[lost] == 0 || fates[late] == 0 {
		t.Errorf("fates %v, want all kinds", fates)
	}
}

// Of 10 drawn exactly 3 straggle and exactly 2 drop out; a partial straggler does 1 to 4 of 5 epochs, each as often.
func TestSharesAreExact(t *testing.T) {
	tr, epochs := mustered(t, FleetSettings{Dropout: .2, Stragglers: .3, Partial: true}, 5), map[int]int{}
	for round := 1; round <= 400; round++ {
		m, slow := tr.muster(round), 0
		for _, d := range m.drawn {
			if d.epochs > 0 {
				slow++
				epochs[d.epochs]++
			}
		}
		if slow != 3 || m.count(lost) != 2 || m.count(heard) != 8 || len(m.counted()) != 8 {
			t.Fatalf("round %d: %d straggle, %d drop out, %d are heard", round, slow, m.count(lost), m.count(heard))
		}
	}
	for e := 1; e <= 4; e++ { // 1200 draws of 4: 300 ± 5 × 15
		if n := epochs[e]; n < 225 || n > 375 {
			t.Errorf("%d stragglers did %d epochs, want about 300 of 1200", n, e)
		}
	}
	if len(epochs) != 4 {
		t.Errorf("epochs %v", epochs)
	}
	// Without partial they are late and their epochs do not matter.
	tr = mustered(t, FleetSettings{Stragglers: .5}, 5)
	if m := tr.muster(1); m.count(late) != 5 || len(m.counted()) != 5 {
		t.Errorf("%d late", m.count(late))
	}
}

// A quarter of 10 is 2.5: in half of all rounds 2 and in half 3 drop out. 400 rounds: 200 ± 5 × 10.
func TestShareOfAFraction(t *testing.T) {
	tr, of := mustered(t, FleetSettings{Dropout: .25}, 5), map[int]int{}
	for round := 1; round <= 400; round++ {
		of[tr.muster(round).count(lost)]++
	}
	if of[2] < 150 || of[2] > 250 || of[2]+of[3] != 400 {
		t.Errorf("drop-outs %v, want 2 or 3, each 200 times", of)
	}
}

// Every node straggles as often as the others: 2000 rounds of 10 out of 40, of which 3, are 150 each, ± 5 × 11.6.
func TestEverybodyStraggles(t *testing.T) {
	tr, of := mustered(t, FleetSettings{Stragglers: .3}, 9), map[int]int{}
	for round := 1; round <= 2000; round++ {
		for _, d := range tr.muster(round).drawn {
			if d.fate == late {
				of[d.node]++
			}
		}
	}
	for node := range 40 {
		if n := of[node]; n < 92 || n > 208 {
			t.Errorf("node %d straggled %d times, want about 150", node, n)
		}
	}
}

// One node alike in all: 20 examples and 5 epochs at 10 a second are 10 s; the model of 2·16+16+16·3+3 = 99 parameters is
// 396 bytes down at 99 a second, 4 s, and its update 297 bytes at 29.7 a second, 10 s; a second each way: 26 s.
func TestRoundTimeByHand(t *testing.T) {
	s := FleetSettings{Speed: SpeedSettings{Examples: 10}, Bandwidth: BandwidthSettings{Down: 99, Up: 29.7, Latency: 1}}
	for _, c := range []struct {
		change  func(s *FleetSettings)
		seconds float64
		counted int
		epochs  int
		skipped string
	}{
		{func(*FleetSettings) {}, 26, 10, 0, ""},
		{func(s *FleetSettings) { s.Interval = 30 }, 30, 10, 0, ""},
		{func(s *FleetSettings) { s.Deadline = 26 }, 26, 10, 0, ""},
		{func(s *FleetSettings) { s.Deadline, s.Partial = 25, true }, 24, 10, 4, ""}, // 9 s are left, an epoch takes 2
		{func(s *FleetSettings) { s.Deadline, s.Dropout = 28, .5 }, 28, 5, 0, ""},    // it waits for those who do not come
		{func(s *FleetSettings) { s.Dropout = .5 }, 26, 5, 0, ""},
		{func(s *FleetSettings) { s.Dropout, s.OverSelection = .25, 1 }, 26, 10, 0, ""},                                                    // 15 of 20 come, the first 10 count
		{func(s *FleetSettings) { s.Dropout, s.Stragglers, s.Least = .3, .3, 7 }, 26, 0, 0, "5 of 10 updates came, at least 7 are wanted"}, // one does both
		{func(s *FleetSettings) { s.Dropout = .99 }, 0, 0, 0, "0 of 10 updates came, at least 1 are wanted"},
	} {
		s := s
		c.change(&s)
		m := mustered(t, s, 1).muster(1)
		if got := m.counted(); m.end != c.seconds || len(got) != c.counted || m.skipped != c.skipped || len(got) > 0 && got[0].epochs != c.epochs {
			t.Errorf("%+v: %d counted after %v s, skipped %q, want %d after %v s, %q", s, len(got), m.end, m.skipped, c.counted, c.seconds, c.skipped)
		}
	}
	m := mustered(t, s, 1)
	m.muster(7)
	if a := m.account(7); a.seconds != 7*26 || a.received != 10*396 || a.tooLate != 0 {
		t.Errorf("%+v", a)
	}
	s.OverSelection = .5
	if a := mustered(t, s, 1).account(1); a.late != 5 || a.received != 15*396 || a.tooLate != 5*297 {
		t.Errorf("five of fifteen came after the ten that were wanted: %+v", a)
	}
}

// With over-selection the first ten arrivals count, and not the first ten names.
func TestTheFirstCount(t *testing.T) {
	for _, spread := range []float64{0, 1} {
		tr := mustered(t, FleetSettings{OverSelection: 2, Speed: SpeedSettings{Examples: 10, Spread: spread}}, 2)
		byName := 0
		for round := 1; round <= 20; round++ {
			m := tr.muster(round)
			last, first := 0.0, math.Inf(1)
			for i, d := range m.drawn {
				if d.fate == heard {
					last = max(last, d.arrives)
					if i < 10 {
						byName++
					}
				} else {
					first = min(first, d.arrives)
				}
			}
			if len(m.drawn) != 30 || len(m.counted()) != 10 || last > first || math.Abs(m.end-m.begin-last) > 1e-9 {
				t.Errorf("%d drawn, %d counted until %v, the next came at %v; the round took %v", len(m.drawn), len(m.counted()), last, first, m.end-m.begin)
			}
		}
		if byName > 100 { // of 200; the first third of the names has about 67 of them
			t.Errorf("spread %v: %d of 200 counted are among the first ten names of thirty", spread, byName)
		}
	}
}

// Speeds are lognormal around the usual one times the class's factor: of 4000 nodes the logarithms' deviation is within a
// twentieth, and shares of classes within a fifth of what was asked for.
func TestDevices(t *testing.T) {
	s := FleetSettings{Speed: SpeedSettings{Examples: 100, Spread: .4, Classes: []DeviceClass{{.25, 1e-3}, {.1, 1e3}}}, Bandwidth: BandwidthSettings{Down: 10, Spread: .2}}
	classes := map[int]float64{}
	var sum, squares, ways, zones float64
	for i := range 4000 {
		d := s.deviceOf(7, NodeName(i))
		log := math.Log(1 / d.train / 100)
		class := int(math.Round(log / math.Log(1e3)))
		classes[class] += 1. / 4000
		log -= float64(class) * math.Log(1e3)
		sum, squares = sum+log/4000, squares+log*log/4000
		ways += math.Abs(math.Log(d.down*10)) / 4000
		zones += d.zone / 4000
		if d.up != 0 || d.latency != 0 || d.zone != math.Trunc(d.zone) || d.zone < 0 || d.zone > 23 {
			t.Fatalf("%+v", d)
		}
	}
	if deviation := math.Sqrt(squares - sum*sum); math.Abs(deviation-.4) > .02 || math.Abs(sum) > .04 {
		t.Errorf("logarithms of speeds %v ± %v, want 0 ± .4", sum, deviation)
	}
	if math.Abs(classes[-1]-.25) > .05 || math.Abs(classes[1]-.1) > .02 || len(classes) != 3 {
		t.Errorf("classes %v", classes)
	}
	if want := .2 * math.Sqrt(2/math.Pi); math.Abs(ways-want) > .01 || math.Abs(zones-11.5) > .6 {
		t.Errorf("mean deviation of bandwidths %v, want %v; mean zone %v, want 11.5", ways, want, zones)
	}
}

// In an hour of night nine nodes of ten are there, by day one of five; who is there changes from hour to hour, not within.
func TestAvailability(t *testing.T) {
	a := AvailabilitySettings{Day: .2, Night: .9, Zones: 1}
	share := func(clock float64) (n float64) {
		for i := range 3000 {
			if a.there(1, NodeName(i), device{}, clock) {
				n += 1. / 3000
			}
		}
		return n
	}
	for hour, want := range map[float64]float64{0: .9, 5: .9, 6: .2, 12: .2, 21: .2, 22: .9, 23: .9, 24: .9, 30: .2} {
		if got := share(hour * 3600); math.Abs(got-want) > .04 {
			t.Errorf("at %v o'clock %v are there, want %v", hour, got, want)
		}
		if share(hour*3600) != share(hour*3600+3599) {
			t.Errorf("who is there changes within the hour of %v", hour)
		}
	}
	if a.there(1, "n", device{zone: 0}, 12*3600) && a.there(1, "n", device{zone: 0}, 13*3600) && a.there(1, "n", device{zone: 0}, 14*3600) && a.there(1, "n", device{zone: 0}, 15*3600) {
		t.Error("a node is there four hours of the day in a row, of which each is one of five: take another seed")
	}
	if !(AvailabilitySettings{}).there(1, "n", device{}, 0) {
		t.Error("without shares nodes are always there")
	}
	// Twelve hours ahead noon is midnight.
	there := 0
	for i := range 1000 {
		if a.there(1, NodeName(i), device{zone: 12}, 12*3600) {
			there++
		}
	}
	if there < 850 {
		t.Errorf("%d of 1000 are there at their midnight", there)
	}
}

// Rounds by day, when nobody is there, are skipped with the reason, each until the next hour; those by night are not, and
// nobody takes part who is not there.
func TestRoundsWaitForNight(t *testing.T) {
	x := fleetOf(FleetSettings{Interval: 600, Availability: AvailabilitySettings{Night: .5, Zones: 1}})
	x.Rounds = 50
	var points []Point
	r, err := Run(t.Context(), x, RunConfig{Seed: 3, Progress: func(p Point) { points = append(points, p) }})
	if err != nil {
		t.Fatal(err)
	}
	// From midnight to 6: 36 rounds of ten minutes; then 14 hours of day.
	for i, p := range points {
		want := float64(600 * (i + 1))
		if i >= 36 {
			want = 6*3600 + float64(i-35)*3600
		}
		if night := i < 36; (p.Skipped == "") != night || night && p.Counted != 10 || p.Seconds != want {
			t.Fatalf("round %d at %v: %+v", p.Round, want, p)
		}
		if i >= 36 && (p.Digest != points[35].Digest || !strings.Contains(p.Skipped, "0 of 40 nodes are there, at least 1 are wanted") || p.Sent != 0 || p.Received != 0) {
			t.Errorf("round %d: %+v", p.Round, p)
		}
	}
	if len(r.Skipped) != 14 || r.Skipped[0].Round != 37 || r.Rounds != 50 || r.VirtualSeconds != 20*3600 || r.Series[40].Counted != 0 {
		t.Errorf("%+v", r)
	}
}

// What drops out or is late leaves the run deterministic for any number of workers, and is told; bytes are those of all who
// were drawn and of all that was sent.
func TestFleetRuns(t *testing.T) {
	digests := map[string]bool{}
	for workers := 1; workers <= 3; workers++ {
		x := fleetOf(everything)
		var sum Point
		r, err := Run(t.Context(), x, RunConfig{Seed: 6, Workers: workers, Progress: func(p Point) {
			sum.Counted, sum.Dropped, sum.Late, sum.Sent, sum.Received = sum.Counted+p.Counted, sum.Dropped+p.Dropped, sum.Late+p.Late, sum.Sent+p.Sent, sum.Received+p.Received
		}})
		if err != nil {
			t.Fatal(err)
		}
		digests[r.ModelDigest] = true
		last := r.Series[len(r.Series)-1]
		if alone, err := Run(t.Context(), x, RunConfig{Seed: 6, Workers: workers}); err != nil || alone.Spent != r.Spent {
			t.Errorf("while nobody watches %+v, %v, want %+v", alone.Spent, err, r.Spent)
		}
		if sum.Dropped == 0 || sum.Late == 0 || sum.Counted == 0 || sum.Received != r.BytesDown || sum.Sent != r.BytesUp || last.Spent != r.Spent || r.VirtualSeconds == 0 {
			t.Errorf("%+v, %+v", sum, r)
		}
	}
	if len(digests) != 1 {
		t.Errorf("one seed gave models %v", digests)
	}
}

// FedProx keeps what stragglers manage, FedAvg without partial drops them; the same nodes straggle in both.
func TestStragglersChangeTheModelOnly(t *testing.T) {
	models := map[string]string{}
	for _, partial := range []bool{false, true} {
		x := fleetOf(FleetSettings{Stragglers: .5, Partial: partial})
		r, err := Run(t.Context(), x, RunConfig{Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		models[r.ModelDigest] = fmt.Sprint(r.Series[0].Counted)
	}
	if len(models) != 2 {
		t.Errorf("models %v", models)
	}
	slow := func(partial bool) (names []string) {
		for _, d := range mustered(t, FleetSettings{Stragglers: .5, Partial: partial}, 1).muster(3).drawn {
			if d.epochs > 0 || d.fate == late {
				names = append(names, d.name)
			}
		}
		return names
	}
	if a, b := slow(false), slow(true); !slices.Equal(a, b) || len(a) != 5 {
		t.Errorf("%v and %v straggle", a, b)
	}
}

func TestFleetRefusals(t *testing.T) {
	for _, c := range []struct {
		s    FleetSettings
		want string
	}{
		{FleetSettings{Dropout: 1.5}, "fleet: dropout is 1.5, want 0 to 1"},
		{FleetSettings{Dropout: math.NaN()}, "fleet: dropout is NaN, want 0 to 1"},
		{FleetSettings{Stragglers: -1}, "fleet: stragglers is -1, want 0 to 1"},
		{FleetSettings{Least: 11}, "fleet: least is 11, want at most 10, the cohort"},
		{FleetSettings{Least: 9, Dropout: .2}, "fleet: least is 9, and dropout of 0.2 and stragglers of 0 leave at most 8 updates; want at most so many"},
		{FleetSettings{Dropout: 1}, "fleet: dropout of 1 and stragglers of 0 leave nobody of 10 who is heard; want each below 1"},
		{FleetSettings{Least: -1}, "fleet: least is -1, want 1 to 2147483647"},
		{FleetSettings{OverSelection: 3.5}, "over_selection is 3.5 and draws 45 nodes of 40, want at most 3"},
		{FleetSettings{Deadline: 5}, "deadline: nothing takes time"},
		{FleetSettings{Deadline: 5, Speed: SpeedSettings{Examples: 10}}, "deadline is 5 seconds, and the fastest node takes 10; want at least so many"},
		{FleetSettings{Deadline: 1.9, Partial: true, Speed: SpeedSettings{Examples: 10}}, "the fastest node takes 2; want"},
		{FleetSettings{Partial: true}, "partial: nobody does less than all epochs"},
		{FleetSettings{Availability: AvailabilitySettings{Day: .5}}, "availability: the clock stands still"},
		{FleetSettings{Availability: AvailabilitySettings{Zones: 3}}, "zones change nothing"},
		{FleetSettings{Interval: 1, Availability: AvailabilitySettings{Day: 2}}, "availability: day is 2, want 0 to 1"},
		{FleetSettings{Interval: 1, Availability: AvailabilitySettings{Day: .2, Zones: -1}}, "availability: zones is -1, want 1 to 24"},
		{FleetSettings{Speed: SpeedSettings{Spread: 1}}, "speed: spread and classes change nothing"},
		{FleetSettings{Speed: SpeedSettings{Examples: 1, Classes: []DeviceClass{{.6, 1}, {.6, 2}}}}, "shares sum to 1.2, want at most 1"},
		{FleetSettings{Speed: SpeedSettings{Examples: 1, Classes: []DeviceClass{{.6, 0}}}}, "speed: class 1: factor is 0, want 1e-06 to 1000000"},
		{FleetSettings{Bandwidth: BandwidthSettings{Spread: 1}}, "bandwidth: spread changes nothing"},
		{FleetSettings{Bandwidth: BandwidthSettings{Up: -1}}, "bandwidth: up is -1, want 0"},
	} {
		if _, err := Run(t.Context(), fleetOf(c.s), RunConfig{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.s, err, c.want)
		}
	}
	x := fleetOf(FleetSettings{Stragglers: .5, Partial: true})
	x.Local.Epochs = 1
	if _, err := Run(t.Context(), x, RunConfig{}); err == nil || !strings.Contains(err.Error(), "local: epochs, which is 1; want at least 2") {
		t.Error(err)
	}
}

// atLeast is a rule that cannot hold with fewer updates.
type atLeast int

func (a atLeast) Check(updates int) error {
	if updates < int(a) {
		return fmt.Errorf("%d updates, want at least %d", updates, int(a))
	}
	return nil
}
func (atLeast) Needs() fedavg.RuleNeeds           { return fedavg.RuleNeeds{} }
func (atLeast) Combine(*fedavg.Combination) error { return nil }

// A rule that does not hold with those who came skips the round; one that cannot hold with the cohort is refused.
func TestRulesNeedTheirUpdates(t *testing.T) {
	x := fleetOf(FleetSettings{Dropout: .25})
	x.Rounds, x.Own.Rule, x.Architecture = 40, atLeast(8), model.Architecture{Name: "logistic"}
	r, err := Run(t.Context(), x, RunConfig{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(r.Skipped); n < 5 || n > 35 || r.Skipped[0].Reason != "7 updates, want at least 8" {
		t.Errorf("%d of 40 rounds skipped: %+v", n, r.Skipped)
	}
	x.Own.Rule = atLeast(11)
	if _, err := Run(t.Context(), x, RunConfig{}); err == nil || !strings.Contains(err.Error(), "10 updates, want at least 11") {
		t.Error(err)
	}
}

package fedavg

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// combineBy runs a rule on vectors, after its own check of their number.
func combineBy(t *testing.T, r Rule, vectors [][]int32, trusted []int32, last []float64) []float64 {
	t.Helper()
	must(t, r.Check(len(vectors)))
	c := &Combination{Vectors: vectors, Out: make([]float64, len(vectors[0])), Trusted: trusted, Last: last, Seed: 7}
	for range vectors {
		c.Weights = append(c.Weights, 1)
	}
	must(t, r.Combine(c))
	return c.Out
}

// cloud are n vectors around a point that is far from zero.
func cloud(rng *rand.Rand, n, size int) [][]int32 {
	vectors := make([][]int32, n)
	for i := range vectors {
		vectors[i] = make([]int32, size)
		for k := range vectors[i] {
			vectors[i][k] = int32(5000*(k%7-3)) + int32(rng.NormFloat64()*1000)
		}
	}
	return vectors
}

// named is a rule of the tables of these tests, with what it is by definition, in float64 and without any care for time.
type named struct {
	name  string
	rule  Rule
	naive func(vectors [][]int32, trusted []int32, last []float64) []float64
}

const liarsInTests = 4

func robustRules() []named {
	const f = liarsInTests
	return []named{
		{"median", CoordinateMedian{f}, func(v [][]int32, _ []int32, _ []float64) []float64 {
			return byColumn(v, func(x []float64) float64 { return (x[(len(x)-1)/2] + x[len(x)/2]) / 2 })
		}},
		{"trimmed-mean", TrimmedMean{f}, func(v [][]int32, _ []int32, _ []float64) []float64 {
			return byColumn(v, func(x []float64) float64 { return meanOf(x[f : len(x)-f]) })
		}},
		{"krum", Krum{f}, func(v [][]int32, _ []int32, _ []float64) []float64 { return naiveMultiKrum(v, f, 1) }},
		{"multi-krum", MultiKrum{F: f}, func(v [][]int32, _ []int32, _ []float64) []float64 { return naiveMultiKrum(v, f, len(v)-f) }},
		{"multi-krum of 3", MultiKrum{F: f, Select: 3}, func(v [][]int32, _ []int32, _ []float64) []float64 { return naiveMultiKrum(v, f, 3) }},
		{"bulyan", Bulyan{f}, func(v [][]int32, _ []int32, _ []float64) []float64 { return naiveBulyan(v, f) }},
		{"geometric-median", GeometricMedian{F: f, Smoothing: 1e-6, Iterations: 1000}, func(v [][]int32, _ []int32, _ []float64) []float64 {
			return naiveWeiszfeld(v, 1e-6)
		}},
		{"centred-clipping", CentredClipping{F: f, Radius: 3000, Iterations: 3}, func(v [][]int32, _ []int32, last []float64) []float64 {
			return naiveClipping(v, last, 3000, 3)
		}},
		{"norm-bound", NormBound{F: f, Norm: 20000}, func(v [][]int32, _ []int32, _ []float64) []float64 {
			return naiveClipping(v, make([]float64, len(v[0])), 20000, 1)
		}},
		{"fltrust", FLTrust{}, func(v [][]int32, trusted []int32, _ []float64) []float64 { return naiveTrust(v, trusted) }},
	}
}

func byColumn(v [][]int32, f func(sorted []float64) float64) []float64 {
	out := make([]float64, len(v[0]))
	for k := range out {
		var x []float64
		for i := range v {
			x = append(x, float64(v[i][k]))
		}
		slices.Sort(x)
		out[k] = f(x)
	}
	return out
}

func meanOf(x []float64) (m float64) {
	for _, v := range x {
		m += v / float64(len(x))
	}
	return m
}

// away is the distance of an integer vector from a point.
func away(v []int32, p []float64) (d float64) {
	for k := range v {
		d += (float64(v[k]) - p[k]) * (float64(v[k]) - p[k])
	}
	return math.Sqrt(d)
}

func asFloats(v []int32) []float64 {
	out := make([]float64, len(v))
	for k := range v {
		out[k] = float64(v[k])
	}
	return out
}

// naiveOrder is the order of the vectors by Krum's score with that many neighbours.
func naiveOrder(v [][]int32, neighbours int) []int {
	scores, order := make([]float64, len(v)), make([]int, len(v))
	for i := range v {
		order[i] = i
		var d []float64
		for j := range v {
			if j != i {
				d = append(d, math.Pow(away(v[j], asFloats(v[i])), 2))
			}
		}
		slices.Sort(d)
		for _, x := range d[:neighbours] {
			scores[i] += x
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		if scores[a] < scores[b] {
			return -1
		}
		return 1
	})
	return order
}

func naiveMultiKrum(v [][]int32, f, m int) []float64 {
	var chosen [][]int32
	for _, i := range naiveOrder(v, len(v)-f-2)[:m] {
		chosen = append(chosen, v[i])
	}
	return byColumn(chosen, meanOf)
}

func naiveBulyan(v [][]int32, f int) []float64 {
	left, chosen := slices.Clone(v), [][]int32{}
	for range len(v) - 2*f {
		best := naiveOrder(left, max(len(left)-f-2, 1))[0]
		chosen = append(chosen, left[best])
		left = slices.Delete(slices.Clone(left), best, best+1)
	}
	return byColumn(chosen, func(x []float64) float64 {
		median := (x[(len(x)-1)/2] + x[len(x)/2]) / 2
		slices.SortStableFunc(x, func(a, b float64) int {
			if math.Abs(a-median) < math.Abs(b-median) {
				return -1
			}
			return 0
		})
		return meanOf(x[:len(chosen)-2*f])
	})
}

func naiveWeiszfeld(v [][]int32, smoothing float64) []float64 {
	p := byColumn(v, meanOf)
	for range 5000 {
		next, total := make([]float64, len(p)), 0.
		for i := range v {
			w := 1 / max(away(v[i], p), smoothing)
			total += w
			for k := range next {
				next[k] += w * float64(v[i][k])
			}
		}
		for k := range next {
			p[k] = next[k] / total
		}
	}
	return p
}

func naiveClipping(v [][]int32, start []float64, radius float64, iterations int) []float64 {
	p := slices.Clone(start)
	for range iterations {
		next := slices.Clone(p)
		for i := range v {
			scale := min(1, radius/away(v[i], p)) / float64(len(v))
			for k := range p {
				next[k] += scale * (float64(v[i][k]) - p[k])
			}
		}
		p = next
	}
	return p
}

func naiveTrust(v [][]int32, trusted []int32) []float64 {
	zero := make([]float64, len(trusted))
	own, total, out := away(trusted, zero), 0., make([]float64, len(trusted))
	for i := range v {
		n, d := away(v[i], zero), 0.
		for k := range v[i] {
			d += float64(v[i][k]) * float64(trusted[k])
		}
		trust := max(d/(n*own), 0)
		total += trust
		for k := range out {
			out[k] += trust * own / n * float64(v[i][k])
		}
	}
	for k := range out {
		out[k] /= total
	}
	return out
}

// closeTo reports whether two vectors are the same within a part of the largest coordinate.
func closeTo(a, b []float64, tolerance float64) bool {
	top := 1.
	for _, v := range b {
		top = max(top, math.Abs(v))
	}
	for k := range a {
		if !(math.Abs(a[k]-b[k]) <= tolerance*top) {
			return false
		}
	}
	return len(a) == len(b)
}

// TestRulesAreTheirDefinitions: with and without liars, and vectors longer and shorter than what is looked at together.
func TestRulesAreTheirDefinitions(t *testing.T) {
	for _, r := range robustRules() {
		for _, size := range []int{1, 5, 130, 700} {
			for _, liars := range []int{0, liarsInTests} {
				t.Run(fmt.Sprint(r.name, "/", size, "/", liars), func(t *testing.T) {
					rng := rand.New(rand.NewPCG(uint64(size), uint64(liars)))
					v, trusted, last := cloud(rng, 23, size), cloud(rng, 1, size)[0], asFloats(cloud(rng, 1, size)[0])
					for i := range liars {
						for k := range v[5*i] {
							v[5*i][k] = int32(rng.IntN(2*MaxQ) - MaxQ)
						}
					}
					tolerance := 1e-9
					if r.name == "geometric-median" {
						tolerance = 1e-5 // it converges slowly where the point is one of the vectors
					}
					got, want := combineBy(t, r.rule, v, trusted, last), r.naive(v, trusted, last)
					if !closeTo(got, want, tolerance) {
						t.Errorf("%v, want %v", got, want)
					}
				})
			}
		}
	}
}

// TestRulesDoNotKnowOrder: whoever sends first, the same comes out. Bucketing draws by place, and places are in order of
// names; TestCombineIsInOrderOfNames holds that.
func TestRulesDoNotKnowOrder(t *testing.T) {
	for _, r := range robustRules() {
		rng := rand.New(rand.NewPCG(3, 3))
		v, trusted, last := cloud(rng, 19, 90), cloud(rng, 1, 90)[0], make([]float64, 90)
		want := combineBy(t, r.rule, v, trusted, last)
		rng.Shuffle(len(v), func(i, j int) { v[i], v[j] = v[j], v[i] })
		if got := combineBy(t, r.rule, v, trusted, last); !closeTo(got, want, 1e-12) {
			t.Errorf("%s: another order gives %v, want %v", r.name, got, want)
		}
	}
}

// TestLiarsDoNotDecide: f vectors that are as far away as the grid allows, all on one side, move no rule further from the
// mean of the honest than the honest are apart from each other: but for norm-bound, whose promise is a bounded influence,
// here of 4 in 20 times the norm on each side.
func TestLiarsDoNotDecide(t *testing.T) {
	const n, size = 20, 200
	for _, r := range append(robustRules(),
		named{name: "bucketing", rule: Bucketing{CoordinateMedian{liarsInTests}, liarsInTests, 2}},
		named{name: "centred-clipping, median radius", rule: CentredClipping{F: liarsInTests, Iterations: 20}},
		named{name: "norm-bound, median", rule: NormBound{F: liarsInTests}}) {
		rng := rand.New(rand.NewPCG(4, 4))
		v := cloud(rng, n, size)
		if r.name == "bulyan" {
			v = append(v, cloud(rng, 3, size)...) // 4f+3
		}
		honest := v[liarsInTests:]
		center := byColumn(honest, meanOf)
		apart := 0.
		for _, h := range honest {
			apart = max(apart, away(h, center))
		}
		trusted := slices.Clone(honest[0])
		for i := range liarsInTests {
			v[i] = slices.Repeat([]int32{MaxQ}, size)
		}
		got := combineBy(t, r.rule, v, trusted, center)
		bound := apart
		if strings.HasPrefix(r.name, "norm-bound") {
			bound = 2 * away(make([]int32, size), center)
		}
		far := 0.
		for k := range got {
			far += (got[k] - center[k]) * (got[k] - center[k])
		}
		if far = math.Sqrt(far); !(far <= bound) {
			t.Errorf("%s: %v from the mean of the honest, who are at most %v apart from it; want at most %v", r.name, far, apart, bound)
		}
		mean := byColumn(v, meanOf)
		if spoilt := away(make([]int32, size), mean); spoilt < 100*apart {
			t.Fatalf("the mean itself is only %v away: the test shows nothing", spoilt)
		}
	}
}

// Five vectors in the plane: (0,0), (2,0), (0,2), (2,2) and a liar's (100,100), f = 1.
// median: of 0,0,2,2,100 it is 2. trimmed: (0+2+2)/3. Krum: n-f-2 = 2 neighbours; each corner has two at distance² 4, so 8,
// the liar far more: the first corner. Multi-Krum: all four corners, whose mean is (1,1). Geometric median of four corners
// and a far point on the diagonal: on the diagonal. FLTrust with (1,1)/cosine: (2,0) and (0,2) have cosine 1/√2, (2,2) and the
// liar 1, (0,0) none; each is scaled to √2: sum of trust 2+√2; x = (1/√2·√2 + 1 + 1)/(2+√2) = 3/(2+√2).
// Centred clipping from (0,0) with radius √8: the liar counts as (2,2): x = (0+2+0+2+2)/5. Norm bound √8: the same.
func TestRulesByHand(t *testing.T) {
	v := [][]int32{{0, 0}, {2, 0}, {0, 2}, {2, 2}, {100, 100}}
	for _, c := range []struct {
		rule Rule
		want float64 // of both coordinates
	}{
		{CoordinateMedian{1}, 2},
		{TrimmedMean{1}, 4. / 3},
		{Krum{1}, 0},
		{MultiKrum{F: 1}, 1},
		{MultiKrum{F: 1, Select: 1}, 0},
		{FLTrust{}, 3 / (2 + math.Sqrt2)},
		{CentredClipping{F: 1, Radius: math.Sqrt(8)}, 6. / 5},
		{NormBound{F: 1, Norm: math.Sqrt(8)}, 6. / 5},
		{NormBound{F: 1}, (2 + 2/math.Sqrt2 + 2/math.Sqrt2) / 5}, // norms 0, 2, 2, √8, 141: the median is 2
	} {
		got := combineBy(t, c.rule, v, []int32{1, 1}, []float64{0, 0})
		if !closeTo(got, []float64{c.want, c.want}, 1e-12) {
			t.Errorf("%T: %v, want %v", c.rule, got, c.want)
		}
	}
}

// Seven values and f = 1: Bulyan takes 5 of them by Krum, drops the liar's 1000 and one more, and of the 5 the 3 that are
// closest to the median. By n-f-2 = 4 neighbours of 0, 1, 2, 3, 4, 5, 1000 the scores are 30, 15, 10, 10, 15, 30, huge: 2
// goes. Of 0, 1, 3, 4, 5, 1000 with 3 neighbours: 26, 14, 9, 11, 21: 3 goes. Of 0, 1, 4, 5, 1000 with 2: 17, 10, 10, 17: 1
// goes. Of 0, 4, 5, 1000 with 1: 16, 1, 1: 4 goes. Of 0, 5, 1000 with 1: 25, 25: 0 goes. Chosen are 0, 1, 2, 3, 4; the
// median is 2, and 1, 2, 3 are closest.
func TestBulyanByHand(t *testing.T) {
	v := [][]int32{{0}, {1}, {2}, {3}, {4}, {5}, {1000}}
	if got := combineBy(t, Bulyan{1}, v, nil, nil); got[0] != 2 {
		t.Errorf("%v, want 2", got)
	}
}

// Of 0, 3, 4, 10 the two closest to 3.5 are 3 and 4; of 0, 2, 4, 4 to 3 the values 2, 4, 4 are equally close and the lesser
// are taken; of -5, -4, 9 one is closest to -4, itself.
func TestAroundMedian(t *testing.T) {
	for _, c := range []struct {
		values []int32
		count  int
		want   float64
	}{
		{[]int32{10, 0, 4, 3}, 2, 3.5}, {[]int32{4, 2, 0, 4}, 2, 3}, {[]int32{9, -5, -4}, 1, -4}, {[]int32{-MaxQ, MaxQ, MaxQ}, 2, MaxQ},
		{[]int32{1, 2, 3}, 3, 2},
	} {
		var v [][]int32
		for _, x := range c.values {
			v = append(v, []int32{x})
		}
		out := []float64{0}
		if aroundMedian(v, c.count, out); out[0] != c.want {
			t.Errorf("%d of %v: %v, want %v", c.count, c.values, out, c.want)
		}
	}
}

// The least sum of distances to the corners of a square is in its middle; to three points on a line at the one between.
func TestGeometricMedianByHand(t *testing.T) {
	r := GeometricMedian{Smoothing: 1e-9, Iterations: 10000}
	if got := combineBy(t, r, [][]int32{{0, 0}, {8, 0}, {0, 8}, {8, 8}}, nil, nil); !closeTo(got, []float64{4, 4}, 1e-9) {
		t.Errorf("square: %v, want its middle", got)
	}
	if got := combineBy(t, r, [][]int32{{0, 0}, {1, 1}, {50, 50}}, nil, nil); !closeTo(got, []float64{1, 1}, 1e-3) {
		t.Errorf("line: %v, want 1", got)
	}
	if got := combineBy(t, r, [][]int32{{7, -7}, {7, -7}}, nil, nil); !closeTo(got, []float64{7, -7}, 1e-12) {
		t.Errorf("all the same: %v, want it", got)
	}
}

// FLTrust trusts nobody that says the opposite, and then nothing moves; nor does it with a trusted update of zeros.
func TestFLTrustOfNobody(t *testing.T) {
	for _, trusted := range [][]int32{{1, 1}, {0, 0}} {
		if got := combineBy(t, FLTrust{}, [][]int32{{-1, -1}, {0, 0}, {-5, 2}}, trusted, nil); !slices.Equal(got, []float64{0, 0}) {
			t.Errorf("%v: %v, want zeros", trusted, got)
		}
	}
}

// Buckets are those of the seed: means of two, of which the rule takes the median, are among the means of all pairs.
func TestBucketing(t *testing.T) {
	v := [][]int32{{0}, {1}, {10}, {100}, {1000}}
	r := Bucketing{CoordinateMedian{}, 0, 2}
	means := map[float64]bool{}
	for i := range v {
		for j := range v {
			means[math.RoundToEven(float64(v[i][0]+v[j][0])/2)] = true
		}
	}
	seen := map[float64]bool{}
	for seed := range uint64(30) {
		c := &Combination{Vectors: v, Out: []float64{0}, Seed: seed}
		must(t, r.Combine(c))
		again := &Combination{Vectors: v, Out: []float64{0}, Seed: seed}
		must(t, r.Combine(again))
		if c.Out[0] != again.Out[0] || !means[c.Out[0]] {
			t.Errorf("seed %d: %v and %v", seed, c.Out, again.Out)
		}
		seen[c.Out[0]] = true
	}
	if len(seen) < 3 {
		t.Errorf("30 seeds give %v", seen)
	}
	if got := roundedMean([][]int32{{1, 2, -3}, {2, 4, -4}}); !slices.Equal(got, []int32{2, 3, -4}) { // 1.5 and -3.5 to even
		t.Errorf("means %v", got)
	}
}

// TestImpossibleNumbers: each rule names itself and the nearest that would do.
func TestImpossibleNumbers(t *testing.T) {
	for _, c := range []struct {
		rule    Rule
		updates int
		want    string
	}{
		{CoordinateMedian{4}, 8, "median with f 4 needs 9 updates and there are 8: want f at most 3, or 9 updates"},
		{TrimmedMean{4}, 8, "trimmed-mean with f 4 needs 9 updates"},
		{Krum{4}, 10, "krum with f 4 needs 11 updates and there are 10: want f at most 3, or 11 updates"},
		{Krum{1}, 4, "krum with f 1 needs 5 updates and there are 4, too few for any f"},
		{MultiKrum{F: 4}, 10, "multi-krum with f 4 needs 11 updates"},
		{MultiKrum{F: 4, Select: 17}, 20, "multi-krum: select is 17, want at most 16 of 20 updates"},
		{Bulyan{4}, 18, "bulyan with f 4 needs 19 updates and there are 18: want f at most 3, or 19 updates"},
		{GeometricMedian{F: 10}, 20, "geometric-median with f 10 needs 21 updates"},
		{CentredClipping{F: 10}, 20, "centred-clipping with f 10 needs 21 updates"},
		{NormBound{F: 10}, 20, "norm-bound with f 10 needs 21 updates"},
		{Bucketing{CoordinateMedian{4}, 4, 3}, 20, "bucket is 3 with f 4 and 20 updates, want at most 2"},
		{Bucketing{CoordinateMedian{}, 0, 30}, 20, "bucket is 30 of 20 updates, want at most 19"},
		{Bucketing{Krum{4}, 4, 2}, 20, "20 updates in buckets of 2: krum with f 4 needs 11 updates and there are 10: want f at most 3"},
	} {
		if err := c.rule.Check(c.updates); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%T: %v, want %q", c.rule, err, c.want)
		}
		if err := c.rule.Check(c.updates + 30); err != nil {
			t.Errorf("%T: %d more are refused, too: %v", c.rule, 30, err)
		}
	}
}

func TestRobustSettings(t *testing.T) {
	for _, c := range []struct {
		s    RobustSettings
		want Rule
	}{
		{RobustSettings{}, nil},
		{RobustSettings{Rule: "mean"}, nil},
		{RobustSettings{Rule: "median"}, CoordinateMedian{}},
		{RobustSettings{Rule: "median", F: 3, Bucket: 1}, CoordinateMedian{3}},
		{RobustSettings{Rule: "trimmed-mean", F: 2, Bucket: 3}, Bucketing{TrimmedMean{2}, 2, 3}},
		{RobustSettings{Rule: "krum", F: 2}, Krum{2}},
		{RobustSettings{Rule: "multi-krum", F: 2, Select: 5}, MultiKrum{2, 5}},
		{RobustSettings{Rule: "bulyan", F: 2}, Bulyan{2}},
		{RobustSettings{Rule: "geometric-median"}, GeometricMedian{0, 2e-6, 0}}, // on a grid of step 1/2
		{RobustSettings{Rule: "geometric-median", Smoothing: 1, Iterations: 3}, GeometricMedian{0, 2, 3}},
		{RobustSettings{Rule: "centred-clipping", Radius: 5}, CentredClipping{0, 10, 0}},
		{RobustSettings{Rule: "norm-bound", Norm: 5, F: 1}, NormBound{1, 10}},
		{RobustSettings{Rule: "fltrust", Root: 50}, FLTrust{}},
	} {
		if got, err := c.s.rule(.5); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %#v, %v, want %#v", c.s, got, err, c.want)
		}
	}
	for _, c := range []struct {
		s    RobustSettings
		want string
	}{
		{RobustSettings{Rule: "magic"}, `robust: rule "magic", want one of bulyan, centred-clipping, fltrust, geometric-median, krum, mean, median, multi-krum, norm-bound, trimmed-mean`},
		{RobustSettings{Rule: "krum"}, "robust: krum needs f: how many may lie, at least 1"},
		{RobustSettings{F: 2}, "robust: f is for bulyan, centred-clipping, geometric-median, krum, median, multi-krum, norm-bound, trimmed-mean, not for mean"},
		{RobustSettings{Rule: "krum", F: 2, Select: 3}, "robust: select is for multi-krum, not for krum"},
		{RobustSettings{Rule: "median", Root: 3}, "robust: root is for fltrust, not for median"},
		{RobustSettings{Rule: "norm-bound", Bucket: 2}, "robust: bucket is for"},
		{RobustSettings{Rule: "median", F: -1}, "robust: f is -1, want 1 to 32768"},
		{RobustSettings{Rule: "norm-bound", Norm: math.NaN()}, "robust: norm is NaN, want 1e-12 to 1e+12"},
		{RobustSettings{Rule: "geometric-median", Smoothing: 1e9}, "robust: smoothing is 1e+09"},
		{RobustSettings{Rule: "centred-clipping", Iterations: 10001}, "robust: iterations is 10001"},
	} {
		if _, err := c.s.rule(.5); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.s, err, c.want)
		}
	}
}

// nodesOfThree are updates of one algorithm, as Combine takes them.
func nodesOfThree(t *testing.T, a *Algorithm) Counted {
	c := Counted{Sum: NewSum(a.Shape()), Fleet: 3}
	for i, name := range []string{"c", "a", "b"} {
		u := &Update{Weight: 1, Vectors: [][]int32{{int32(i * 100), int32(-i * 10)}}}
		must(t, u.Check(a.Shape()))
		must(t, c.Sum.Add(u))
		c.Each = append(c.Each, Named{name, u})
	}
	return c
}

// TestRuleRemembers: what centred clipping made of a round is the server's state, and where the next one starts. Of 0, 100
// and 200 with a radius of 30 the first round comes to (0+30+30)/3 = 20; of ways -20, 80 and 180 from there the second
// comes to 20+(-20+30+30)/3.
func TestRuleRemembers(t *testing.T) {
	a := line(t, Settings{Compression: Compression{Range: 4}})
	a.Rule = CentredClipping{Radius: 30}
	state, global := a.FirstState(), make([]float32, 2)
	if len(state) != 1 || len(state[0]) != 2 {
		t.Fatalf("first state %v, want a vector of the rule's", state)
	}
	if shared := a.Shared(state); len(shared) != 0 {
		t.Errorf("nodes are sent %v of it", shared)
	}
	c := nodesOfThree(t, a)
	for _, u := range c.Each {
		u.Vectors[0][1] = 0
	}
	for _, want := range []float32{20, 20 + 40./3} {
		_, err := a.Combine(global, state, c)
		must(t, err)
		if math.Abs(float64(state[0][0]-want)) > 1e-5 {
			t.Errorf("remembered %v, want %v", state[0], want)
		}
	}
	if _, err := a.Combine(global, nil, c); err == nil {
		t.Error("a server without state combined")
	}
}

func TestCombineRefusesWhatARuleCannotHold(t *testing.T) {
	a := line(t, Settings{Robust: RobustSettings{Rule: "krum", F: 1}})
	if _, err := a.Combine(make([]float32, 2), nil, nodesOfThree(t, a)); err == nil || err.Error() != "robust: krum with f 1 needs 5 updates and there are 3, too few for any f" {
		t.Errorf("%v, want the refusal of krum", err)
	}
	a = line(t, Settings{Robust: RobustSettings{Rule: "fltrust"}})
	if _, err := a.Combine(make([]float32, 2), nil, nodesOfThree(t, a)); err == nil || !strings.Contains(err.Error(), "the rule trusts an update of the server's own, and there is none") {
		t.Errorf("%v, want the lack of a trusted update", err)
	}
	c := nodesOfThree(t, a)
	c.Trusted = &Update{Vectors: [][]int32{{100, -10}}}
	next, err := a.Combine(make([]float32, 2), nil, c)
	must(t, err)
	if want := float32(100 * a.Grid.Step()); math.Abs(float64(next[0]-want)) > 1e-6 {
		t.Errorf("next %v, want %v first: two of three point where the trusted one does, the third nowhere", next, want)
	}
}

// TestCombineIsInOrderOfNames: rules that draw see the same order whoever came first.
func TestCombineIsInOrderOfNames(t *testing.T) {
	a := line(t, Settings{Robust: RobustSettings{Rule: "median", Bucket: 2}})
	c := nodesOfThree(t, a)
	c.Seed = 5
	want, err := a.Combine(make([]float32, 2), nil, c)
	must(t, err)
	slices.Reverse(c.Each)
	got, err := a.Combine(make([]float32, 2), nil, c)
	must(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("another order gives %v, want %v", got, want)
	}
}

// scalarsOnly is a strategy that moves the model to the scalar that it is told.
type scalarsOnly struct{ FedAvg }

func (scalarsOnly) Needs() Needs { return Needs{Scalars: 1} }
func (scalarsOnly) Server(r *Round) error {
	r.Next[0] = float32(r.Scalar(0))
	return nil
}

// TestScalarsOfLiars: with a rule a scalar is the median of what nodes say, not a mean that one of them decides.
func TestScalarsOfLiars(t *testing.T) {
	for _, c := range []struct {
		rule Rule
		want float32
	}{{nil, 399.333}, {CoordinateMedian{}, 2}} {
		a := line(t, Settings{})
		a.Strategy, a.Rule = scalarsOnly{}, c.rule
		counted := Counted{Sum: NewSum(a.Shape())}
		for i, s := range []int64{1, 2, 797} {
			weight := []int64{1, 2, 3}[i]
			high, low, err := scalarParts(float64(s), weight)
			must(t, err)
			u := &Update{Weight: weight, Vectors: [][]int32{{0, 0}}, Scalars: []int64{high, low}}
			must(t, counted.Sum.Add(u))
			counted.Each = append(counted.Each, Named{string(rune('a' + i)), u})
		}
		got, err := a.Combine(make([]float32, 2), nil, counted)
		must(t, err)
		if math.Abs(float64(got[0]-c.want)) > 1 {
			t.Errorf("%T: scalar %v, want about %v", c.rule, got[0], c.want)
		}
	}
}

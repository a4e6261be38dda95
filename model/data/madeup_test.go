package data

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// 30 devices of at least 50 examples, of which nine tenths are to learn from; features have the variances of the recipe
// around the device's means. The other numbers are the seed's alone.
func TestFedProxSynthetic(t *testing.T) {
	for _, c := range []struct {
		alpha, beta float64
		iid         bool
	}{{0, 0, true}, {0, 0, false}, {1, 1, false}} {
		train, test, owners, err := FedProxSynthetic(c.alpha, c.beta, c.iid, 3)
		if err != nil || train.Values() != 60 || train.Classes != 10 || len(owners) != train.Len() || len(train.X) != 60*train.Len() {
			t.Fatal(train.Len(), len(owners), err)
		}
		sizes := make([]int, 30)
		for _, o := range owners {
			sizes[o]++
		}
		held := 0
		for _, n := range sizes {
			all := (n*10 + 8) / 9 // the least of which n are nine tenths, rounded down
			held += all - n
		}
		if least := slices.Min(sizes); least < 45 || test.Len() < held || test.Len() > held+30 {
			t.Errorf("%+v: parts of %v, %d to test with", c, sizes, test.Len())
		}
		if !slices.IsSorted(owners) {
			t.Errorf("%+v: devices come in turns", c)
		}
		variances(t, train, owners, slices.Max(sizes))
	}
	a, _, _, _ := FedProxSynthetic(1, 1, false, 3)
	b, _, _, _ := FedProxSynthetic(1, 1, false, 3)
	other, _, _, _ := FedProxSynthetic(1, 1, false, 4)
	if !slices.Equal(a.X, b.X) || !slices.Equal(a.Y, b.Y) || slices.Equal(a.Y, other.Y) {
		t.Error("one seed gives one data set, another another")
	}
	for _, bad := range [][2]float64{{-1, 0}, {0, math.NaN()}, {1e9, 0}} {
		if _, _, _, err := FedProxSynthetic(bad[0], bad[1], false, 1); err == nil || !strings.Contains(err.Error(), "want 0 to 1000 each") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// variances holds those of the largest device's features against j^-1.2. A sample variance of n normals has the relative
// deviation sqrt(2/n); six of them are not passed by any of 60 features but by accident.
func variances(t *testing.T, s Set, owners []int32, most int) {
	t.Helper()
	device := owners[0]
	for _, o := range owners {
		if n := count(owners, o); n == most {
			device = o
			break
		}
	}
	for j := range 60 {
		var sum, squares, n float64
		for i, o := range owners {
			if o == device {
				v := float64(s.X[60*i+j])
				sum, squares, n = sum+v, squares+v*v, n+1
			}
		}
		mean := sum / n
		want := math.Pow(float64(j+1), -1.2)
		if got := squares/n - mean*mean; math.Abs(got/want-1) > 6*math.Sqrt(2/n) {
			t.Errorf("feature %d: variance %v over %v examples, want %v", j, got, n, want)
		}
	}
}

func count(list []int32, v int32) (n int) {
	for _, x := range list {
		if x == v {
			n++
		}
	}
	return n
}

// With iid every device's examples look like those of the others: means of the first feature are within five standard
// errors of 0. Without, they differ by more than 50.
func TestSyntheticDevicesDiffer(t *testing.T) {
	for _, iid := range []bool{true, false} {
		train, _, owners, _ := FedProxSynthetic(1, 1, iid, 1)
		far := 0
		for device := range int32(30) {
			var sum, n float64
			for i, o := range owners {
				if o == device {
					sum, n = sum+float64(train.X[60*i]), n+1
				}
			}
			if math.Abs(sum/n)*math.Sqrt(n) > 5 {
				far++
			}
		}
		if iid && far > 0 || !iid && far < 15 {
			t.Errorf("iid %v: the means of %d devices are far from 0", iid, far)
		}
	}
}

func TestBlobs(t *testing.T) {
	s, err := Blobs(40_000, 3, 4, 5, 2)
	if err != nil || s.Len() != 40_000 || s.Classes != 4 || s.Y[5] != 1 {
		t.Fatalf("%d, %v", s.Len(), err)
	}
	var sum, squares float64
	for i := 2; i < 40_000; i += 4 {
		v := float64(s.X[3*i+1])
		sum, squares = sum+v, squares+v*v
	}
	if variance := squares/1e4 - sum*sum/1e8; math.Abs(variance-1) > .06 {
		t.Errorf("a cloud's variance %v, want 1", variance)
	}
	for _, bad := range [][3]int{{0, 1, 2}, {1, 0, 2}, {1, 1, 1}, {1 << 30, 2, 2}} {
		if _, err := Blobs(bad[0], bad[1], bad[2], 1, 1); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

const play = "First Citizen:\nBefore we\nproceed.\n\nAll:\nSpeak.\n\nFirst Citizen:\nYou are.\n\nACT II\n\nAll:\nno\n"

// What a role says is the lines after its name, speech after speech.
func TestByRole(t *testing.T) {
	for _, text := range []string{play, strings.ReplaceAll(play, "\n", "\r\n")} {
		names, said := byRole(text)
		if !slices.Equal(names, []string{"First Citizen", "All"}) || said["First Citizen"] != "Before we\nproceed.\nYou are.\n" || said["All"] != "Speak.\nno\n" {
			t.Errorf("%q: %q", names, said)
		}
	}
}

// First Citizen says 28 characters, of which 25 are to learn from: 12 windows of 2; the 3 others are one. All says 10: of 9
// four windows, and one character is none.
func TestShakespeareRoles(t *testing.T) {
	train, test, owners, roles, err := ShakespeareRoles(directory(t, map[string]string{"input.txt": play}), 2)
	if err != nil || train.Len() != 16 || test.Len() != 1 || count(owners, 0) != 12 || count(owners, 1) != 4 || len(roles) != 2 {
		t.Fatalf("%d, %d, %v, %q, %v", train.Len(), test.Len(), owners, roles, err)
	}
	alphabet := slices.Compact(slices.Sorted(slices.Values([]rune(play))))
	for i := range train.X[:23] { // within a role a target is the next input
		if train.Y[i] != train.X[i+1] {
			t.Errorf("window %d: %q is followed by %q", i/2, alphabet[int(train.X[i+1])], alphabet[int(train.Y[i])])
		}
	}
	if alphabet[int(train.X[0])] != 'B' || alphabet[int(train.X[24])] != 'S' || train.Classes != len(alphabet) || train.Targets != 2 {
		t.Errorf("%+v", train)
	}
	for text, window := range map[string]int{"no roles here": 2, play: 2000, "": 1} {
		if _, _, _, _, err := ShakespeareRoles(directory(t, map[string]string{"input.txt": text}), window); err == nil || !strings.Contains(err.Error(), "no role says enough") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, _, _, _, err := ShakespeareRoles(t.TempDir(), 0); err == nil {
		t.Error("windows of no character")
	}
}

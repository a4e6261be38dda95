package model

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// logit of a probability.
func logit(p float64) float32 { return float32(math.Log(p / (1 - p))) }

func near(t *testing.T, what string, got float64, err error, want float64) {
	t.Helper()
	if err != nil || math.Abs(got-want) > 1e-6*max(1, math.Abs(want)) {
		t.Errorf("%s: %v, %v; want %v", what, got, err, want)
	}
}

// TestBinaryMetricsByHand: probabilities .9 .8 .8 .3 .1 for labels 1 0 1 1 0. Of six pairs the first positive wins two,
// the second one and a half, the third one. Thresholds .9 (1 of 1), .8 (2 of 3), .3 (3 of 4). Predicted 1: three, two
// rightly, of three positives.
func TestBinaryMetricsByHand(t *testing.T) {
	z := []float32{logit(.9), logit(.8), logit(.8), logit(.3), logit(.1)}
	y := []float32{1, 0, 1, 1, 0}
	got, err := Accuracy(z, 1, y)
	near(t, "accuracy", got, err, 3./5)
	got, err = AUC(z, y)
	near(t, "AUC", got, err, (2+1.5+1)/6)
	got, err = AveragePrecision(z, y)
	near(t, "average precision", got, err, (1./1+2./3+3./4)/3)
	got, err = F1(z, 1, y)
	near(t, "F1", got, err, 2./3)
	loss := -(math.Log(.9) + math.Log(.2) + math.Log(.8) + math.Log(.3) + math.Log(.9)) / 5
	got, err = LogLoss(z, 1, y)
	near(t, "log loss", got, err, loss)
	got, err = Perplexity(z, 1, y)
	near(t, "perplexity", got, err, math.Exp(loss))
	// In four bins: .1; .3; none; .9 .8 .8, of which two are positive.
	got, err = CalibrationError(z, 1, y, 4)
	near(t, "calibration error", got, err, (.1+.7+math.Abs(2.5-2))/5)
	got, err = CalibrationError([]float32{-1000, 0, 1000}, 1, []float32{0, 1, 1}, 2) // 0, one half and 1 are on edges
	near(t, "calibration error on edges", got, err, math.Abs(.5-1)/3)
}

// TestClassMetricsByHand: three classes. Rows predict 0, 0 (a tie), 2, 1 for the classes 0, 1, 2, 2. F1: class 0 has one
// of two guesses right and no miss, class 1 none, class 2 one right and one miss.
func TestClassMetricsByHand(t *testing.T) {
	z := []float32{2, 1, 0, 1, 1, 0, 0, 0, 3, 0, 1, 0}
	y := []float32{0, 1, 2, 2}
	got, err := Accuracy(z, 3, y)
	near(t, "accuracy", got, err, 1./2)
	got, err = F1(z, 3, y)
	near(t, "F1", got, err, (2./3+0+2./3)/3)
	e := math.E
	a, b, c := 1/(1+1/e+1/e/e), e/(2*e+1), e*e*e/(2+e*e*e) // of what is predicted in the first three rows
	d := e / (e + 2)
	got, err = LogLoss(z, 3, y)
	near(t, "log loss", got, err, -(math.Log(a)+math.Log(b)+math.Log(c)+math.Log(1/(e+2)))/4)
	got, err = CalibrationError(z, 3, y, 1)
	near(t, "calibration error", got, err, math.Abs(a+b+c+d-2)/4)
	got, err = Accuracy([]float32{5, -5}, 2, []float32{0})
	near(t, "accuracy of one", got, err, 1)
	got, err = F1([]float32{-1}, 1, []float32{0})
	near(t, "F1 without a positive", got, err, 0)
}

// TestRegressionMetricsByHand: off by 1, -2 and 2.
func TestRegressionMetricsByHand(t *testing.T) {
	p, y := []float32{2, 0, 7}, []float32{1, 2, 5}
	got, err := RMSE(p, y)
	near(t, "RMSE", got, err, math.Sqrt(3))
	got, err = MAE(p, y)
	near(t, "MAE", got, err, 5./3)
	got, err = MAE([]float32{math.MaxFloat32}, []float32{-math.MaxFloat32}) // would overflow a float32
	near(t, "MAE of the largest", got, err, 2*math.MaxFloat32)
}

// TestLossesOfSureModels: nothing overflows for the largest logits.
func TestLossesOfSureModels(t *testing.T) {
	most := float32(math.MaxFloat32)
	got, err := LogLoss([]float32{most, -most}, 1, []float32{1, 0})
	near(t, "right", got, err, 0)
	got, err = LogLoss([]float32{most}, 1, []float32{0})
	near(t, "wrong", got, err, float64(most))
	got, err = LogLoss([]float32{most, -most}, 2, []float32{1})
	near(t, "wrong class", got, err, 2*float64(most))
	if p, err := Perplexity([]float32{most}, 1, []float32{0}); err != nil || !math.IsInf(p, 1) {
		t.Errorf("perplexity %v, %v", p, err)
	}
}

// TestMetricsAgainstNaive compares with the definitions, on scores with many ties.
func TestMetricsAgainstNaive(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	for range 200 {
		n := 2 + rng.IntN(40)
		z, y := make([]float32, n), make([]float32, n)
		for i := range z {
			z[i], y[i] = float32(rng.IntN(9)-4)/2, float32(rng.IntN(2))
		}
		y[0], y[1] = 0, 1
		got, err := AUC(z, y)
		near(t, "AUC", got, err, naiveAUC(z, y))
		got, err = AveragePrecision(z, y)
		near(t, "average precision", got, err, naiveAP(z, y))
		got, err = F1(z, 1, y)
		near(t, "F1", got, err, naiveF1(z, y))
		got, err = CalibrationError(z, 1, y, 7)
		near(t, "calibration error", got, err, naiveECE(z, y, 7))
		// Two classes with logits 0 and z are one logit z, but for the tie, which both give to class 0.
		two := make([]float32, 2*n)
		for i := range z {
			two[2*i+1] = z[i]
		}
		for name, f := range map[string]func([]float32, int, []float32) (float64, error){"accuracy": Accuracy, "log loss": LogLoss, "perplexity": Perplexity} {
			want, _ := f(z, 1, y)
			got, err := f(two, 2, y)
			near(t, name, got, err, want)
		}
	}
}

func naiveAUC(z, y []float32) float64 {
	var won, all float64
	for i := range z {
		for j := range z {
			if y[i] == 1 && y[j] == 0 {
				all++
				if z[i] > z[j] {
					won++
				} else if z[i] == z[j] {
					won += .5
				}
			}
		}
	}
	return won / all
}

// naiveAP averages, over positives, the precision among all that score at least as high.
func naiveAP(z, y []float32) float64 {
	var sum, positives float64
	for i := range z {
		if y[i] != 1 {
			continue
		}
		var right, above float64
		for j := range z {
			if z[j] >= z[i] {
				above++
				right += float64(y[j])
			}
		}
		sum += right / above
		positives++
	}
	return sum / positives
}

func naiveF1(z, y []float32) float64 {
	var right, guessed, there float64
	for i := range z {
		if z[i] > 0 {
			guessed++
			right += float64(y[i])
		}
		there += float64(y[i])
	}
	if right == 0 {
		return 0
	}
	precision, recall := right/guessed, right/there
	return 2 * precision * recall / (precision + recall)
}

func naiveECE(z, y []float32, bins int) float64 {
	sum := 0.0
	for b := range bins {
		var sure, right, n float64
		for i := range z {
			p := 1 / (1 + math.Exp(-float64(z[i])))
			if p > float64(b)/float64(bins) && p <= float64(b+1)/float64(bins) {
				sure, right, n = sure+p, right+float64(y[i]), n+1
			}
		}
		if n > 0 {
			sum += n / float64(len(z)) * math.Abs(sure/n-right/n)
		}
	}
	return sum
}

func TestMetricsRefuse(t *testing.T) {
	type metric func(outputs []float32, classes int, targets []float32) (float64, error)
	order := func(f func(z, y []float32) (float64, error)) metric {
		return func(z []float32, _ int, y []float32) (float64, error) { return f(z, y) }
	}
	for name, f := range map[string]metric{
		"accuracy": Accuracy, "F1": F1, "log loss": LogLoss, "perplexity": Perplexity, "AUC": order(AUC),
		"average precision": order(AveragePrecision), "RMSE": order(RMSE), "MAE": order(MAE),
		"calibration error": func(z []float32, c int, y []float32) (float64, error) { return CalibrationError(z, c, y, 10) },
	} {
		for _, c := range []struct {
			what string
			z, y []float32
			want error // nil: any
		}{
			{"nothing", nil, nil, ErrNoExamples},
			{"NaN", []float32{0, nan32}, []float32{0, 1}, ErrNotFinite},
			{"infinity", []float32{-inf32, 0}, []float32{0, 1}, ErrNotFinite},
			{"NaN as target", []float32{1, 0}, []float32{0, nan32}, nil},
			{"another length", []float32{1, 0, 1}, []float32{0, 1}, nil},
		} {
			if got, err := f(c.z, 1, c.y); err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s of %s: %v, %v", name, c.what, got, err)
			}
		}
		if name == "RMSE" || name == "MAE" {
			continue
		}
		for what, y := range map[string][]float32{"one half": {0, .5}, "2": {1, 2}, "-1": {0, -1}} {
			if got, err := f([]float32{1, 2}, 1, y); err == nil {
				t.Errorf("%s with target %s: %v", name, what, got)
			}
		}
	}
	for what, err := range map[string]error{
		"class out of range": second(Accuracy([]float32{1, 2, 3}, 3, []float32{3})),
		"no classes":         second(Accuracy([]float32{1}, 0, []float32{1})),
		"no bins":            second(CalibrationError([]float32{1}, 1, []float32{1}, 0)),
	} {
		if err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	for _, y := range [][]float32{{0, 0}, {1, 1}} {
		if _, err := AUC([]float32{1, 2}, y); !errors.Is(err, ErrOneClass) {
			t.Errorf("AUC of labels %v: %v", y, err)
		}
		if _, err := AveragePrecision([]float32{1, 2}, y); !errors.Is(err, ErrOneClass) {
			t.Errorf("average precision of labels %v: %v", y, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestMetricsLeaveTheirInputs: nothing is sorted in place.
func TestMetricsLeaveTheirInputs(t *testing.T) {
	z, y := []float32{3, -1, 2}, []float32{1, 0, 1}
	heldZ, heldY := slices.Clone(z), slices.Clone(y)
	_, _ = AUC(z, y)
	_, _ = AveragePrecision(z, y)
	_, _ = F1(z, 1, y)
	_, _ = Rank(z, 0, []int32{2, 1})
	if !slices.Equal(z, heldZ) || !slices.Equal(y, heldY) {
		t.Errorf("%v, %v", z, y)
	}
}

package compress

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"choir.example/model"
	"choir.example/model/data"
)

// random is a float model over the schema with normal parameters of the given deviation.
func random(t *testing.T, st *data.Statistics, hidden []int, deviation float64) *model.Model {
	t.Helper()
	network, err := model.MLP(st.Schema().Features(), hidden...).Compile()
	if err != nil {
		t.Fatal(err)
	}
	m := &model.Model{Name: "m", Variant: "float32", Network: network, Schema: st.Schema(), Statistics: st, Params: network.Initial(1)}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range m.Params {
		m.Params[i] = float32(rng.NormFloat64() * deviation)
	}
	return m
}

// statistics are those of a schema, from sums alone: no row is in the test.
func statistics(t *testing.T, schema string, sums ...int64) *data.Statistics {
	t.Helper()
	s, err := data.ParseSchema([]byte(schema))
	if err != nil {
		t.Fatal(err)
	}
	st, err := data.NewStatistics(s, sums)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

const visits = `{"name":"visits","columns":[{"name":"age","kind":"numeric","min":0,"max":100},{"name":"day","kind":"category","categories":["Mon","Tue"]},{"name":"member","kind":"boolean"},{"name":"bought","kind":"boolean"}],"label":"bought","unit":"visit"}`

// usual is 100 visits: ages around 50 with deviation 20, six Mondays in ten, thirty members, twenty purchases.
func usual(t *testing.T) *data.Statistics {
	t.Helper()
	const g = data.StatGrid
	return statistics(t, visits, 100, 0, 50*g, 29*g, 60, 40, 100, 30, 100, 20)
}

// TestInt8Error: each weight is within half a step of its channel, the largest of a channel is at the end of the scale,
// biases are untouched.
func TestInt8Error(t *testing.T) {
	m := random(t, usual(t), []int{40, 7}, 1)
	for i := range 4 { // weights of 4 inputs × 40 outputs come first
		m.Params[40*i] = 0 // a channel of nothing
		m.Params[40*i+5] *= 1e-30
	}
	m.Params[40*2+3] = 1e6 // a channel with one large weight
	before := slices.Clone(m.Params)
	q, err := Int8(m)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(m.Params, before) || m.Quantised != nil || m.Variant != "float32" {
		t.Error("quantising changes the model")
	}
	if q.Params != nil || q.Variant != "int8" || len(q.Quantised) != 6 || q.Schema != m.Schema || q.Statistics != m.Statistics {
		t.Errorf("quantised to %s with %d layers", q.Variant, len(q.Quantised))
	}
	for i, tensor := range m.Network.Tensors() {
		at, q := m.Params[tensor.Offset:][:tensor.Len()], q.Quantised[i]
		if !tensor.Weight {
			if !slices.Equal(q.Floats, at) {
				t.Errorf("%s: %v, want %v", tensor.Name, q.Floats, at)
			}
			continue
		}
		outputs := tensor.Outputs()
		inputs := tensor.Len() / outputs
		for o := range outputs {
			step, top := float64(q.Scales[o]), 0
			for i := range inputs {
				v, w := int(q.Weights[o*inputs+i]), at[i*outputs+o]
				if off := math.Abs(float64(v)*step - float64(w)); off > step/2 {
					t.Errorf("%s: weight %v becomes %d of %v", tensor.Name, w, v, step)
				}
				top = max(top, v, -v)
			}
			if want := 127; top != want && step != 0 || step == 0 && top != 0 {
				t.Errorf("%s, channel %d: largest %d of scale %v", tensor.Name, o, top, step)
			}
		}
	}
	q.Quantised[1].Floats[0]++
	if !slices.Equal(m.Params, before) {
		t.Error("the quantised model shares the biases")
	}
}

func TestInt8Refuses(t *testing.T) {
	m := random(t, usual(t), []int{3}, 1)
	q, err := Int8(m)
	if err != nil {
		t.Fatal(err)
	}
	broken := *m
	broken.Params = slices.Clone(m.Params)
	broken.Params[5] = float32(math.NaN())
	for name, m := range map[string]*model.Model{"quantised already": q, "NaN": &broken} {
		if _, err := Int8(m); err == nil || !strings.Contains(err.Error(), "quantise model m: it has no finite float parameters") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func quick() DistilConfig {
	return DistilConfig{Hidden: 8, Rows: 2000, Epochs: 5, Batch: 32, Rate: .1, Temperature: 2, Seed: 3}
}

// distilled is a student that must succeed.
func distilled(t *testing.T, teacher *model.Model, cfg DistilConfig) *model.Model {
	t.Helper()
	student, err := Distil(t.Context(), teacher, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return student
}

func encode(t *testing.T, m *model.Model) []byte {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDistilWithoutRows distils on a machine that has no data: from the teacher's file, which holds schema and sums.
// The student has the width asked for, agrees with the teacher, and is decided by file and seed to the last bit.
func TestDistilWithoutRows(t *testing.T) {
	teacher := random(t, usual(t), []int{16}, 1)
	far, err := model.Decode(encode(t, teacher))
	if err != nil {
		t.Fatal(err)
	}
	cfg := quick()
	cfg.Epochs = 20
	student := distilled(t, far, cfg)
	if !reflect.DeepEqual(student.Network.Spec(), model.MLP(teacher.Network.Inputs(), 8)) || student.Variant != "student" {
		t.Errorf("a student of shape %v called %s", student.Network.Spec(), student.Variant)
	}
	if !bytes.Equal(encode(t, student), encode(t, distilled(t, teacher, cfg))) {
		t.Error("another machine distils another student")
	}
	cfg.Seed++
	if bytes.Equal(encode(t, student), encode(t, distilled(t, teacher, cfg))) {
		t.Error("another seed distils the same student")
	}
	x := teacher.Statistics.Synthetic(1000, 99)
	want, got := make([]float32, 1000), make([]float32, 1000)
	teacher.Predictor().Predict(x, want)
	student.Predictor().Predict(x, got)
	if r := correlation(want, got); r < .95 {
		t.Errorf("teacher and student correlate by %v", r)
	}
	if !bytes.Equal(encode(t, teacher), encode(t, far)) {
		t.Error("distilling changes the teacher")
	}
}

func correlation(a, b []float32) float64 {
	var n, sa, sb, saa, sbb, sab float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		n, sa, sb, saa, sbb, sab = n+1, sa+x, sb+y, saa+x*x, sbb+y*y, sab+x*y
	}
	return (n*sab - sa*sb) / math.Sqrt((n*saa-sa*sa)*(n*sbb-sb*sb))
}

// TestTemperature: the student's logits have the teacher's size whatever the temperature that it learnt at.
func TestTemperature(t *testing.T) {
	teacher := random(t, usual(t), []int{16}, .5)
	x := teacher.Statistics.Synthetic(1000, 99)
	size := func(m *model.Model) float64 {
		z, squares := make([]float32, 1000), 0.0
		m.Predictor().Predict(x, z)
		for _, v := range z {
			squares += float64(v) * float64(v)
		}
		return math.Sqrt(squares / 1000)
	}
	for _, temperature := range []float64{.5, 1, 4} {
		cfg := quick()
		cfg.Temperature, cfg.Epochs = temperature, 20
		if got, want := size(distilled(t, teacher, cfg)), size(teacher); math.Abs(got-want) > .15*want {
			t.Errorf("at temperature %v the student's logits are of size %v, the teacher's %v", temperature, got, want)
		}
	}
}

// TestDistilFromMeagreStatistics: columns without a value, without variance, with one category, and a single row give
// finite students that quantise and answer.
func TestDistilFromMeagreStatistics(t *testing.T) {
	const g = data.StatGrid
	const single = `{"name":"visits","columns":[{"name":"age","kind":"numeric","min":0,"max":100},{"name":"day","kind":"category","categories":["Mon"]},{"name":"bought","kind":"boolean"}],"label":"bought","unit":"visit"}`
	for _, c := range []struct {
		name string
		st   *data.Statistics
	}{
		{"constant number", statistics(t, visits, 100, 0, 50*g, 25*g, 60, 40, 100, 30, 100, 20)},
		{"constant at the minimum", statistics(t, visits, 100, 100, 0, 0, 60, 40, 100, 30, 100, 20)},
		{"constant at the maximum", statistics(t, visits, 100, 0, 100*g, 100*g, 60, 40, 100, 30, 100, 20)},
		{"no value anywhere", statistics(t, visits, 0, 0, 0, 0, 0, 0, 0, 0, 100, 20)},
		{"no number", statistics(t, visits, 0, 0, 0, 0, 60, 40, 100, 30, 100, 20)},
		{"half the values missing", statistics(t, visits, 50, 0, 25*g, 15*g, 30, 20, 50, 15, 100, 20)},
		{"one category of two", statistics(t, visits, 100, 0, 50*g, 29*g, 100, 0, 100, 100, 100, 20)},
		{"a single category", statistics(t, single, 100, 0, 50*g, 29*g, 100, 100, 20)},
		{"no positive label", statistics(t, visits, 100, 0, 50*g, 29*g, 60, 40, 100, 30, 100, 0)},
		{"one row", statistics(t, visits, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			student := distilled(t, random(t, c.st, []int{16}, 1), quick())
			small, err := Int8(student)
			if err != nil {
				t.Fatal(err)
			}
			if small.Variant != "student-int8" {
				t.Errorf("a quantised student is called %s", small.Variant)
			}
			columns := len(c.st.Schema().Columns)
			least, oldest, missing := make(data.Row, columns), make(data.Row, columns), slices.Repeat(data.Row{math.NaN()}, columns)
			oldest[0], missing[columns-1] = 100, 0
			x, _ := c.st.Matrix([]data.Row{least, oldest, missing})
			for _, m := range []*model.Model{student, small} {
				again, err := model.Decode(encode(t, m))
				if err != nil {
					t.Fatal(err)
				}
				z := make([]float32, 3)
				if again.Predictor().Predict(x, z); !model.Finite(z) {
					t.Errorf("%s answers %v", m.Variant, z)
				}
			}
		})
	}
}

func TestDistilRefuses(t *testing.T) {
	m := random(t, usual(t), []int{4}, 1)
	wild := random(t, usual(t), []int{400}, 1e38)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Distil(cancelled, m, quick()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
	for _, c := range []struct {
		name    string
		teacher *model.Model
		change  func(*DistilConfig)
		want    string
	}{
		{"no rows", m, func(c *DistilConfig) { c.Rows = 0 }, "0 rows of 4 features, want 1 to 67108864 rows"},
		{"negative rows", m, func(c *DistilConfig) { c.Rows = -1 }, "-1 rows"},
		{"more rows than memory", m, func(c *DistilConfig) { c.Rows = 1<<26 + 1 }, "67108865 rows of 4 features"},
		{"negative epochs", m, func(c *DistilConfig) { c.Epochs = -1 }, "-1 epochs, want at least 0"},
		{"temperature zero", m, func(c *DistilConfig) { c.Temperature = 0 }, "temperature 0, want"},
		{"temperature NaN", m, func(c *DistilConfig) { c.Temperature = math.NaN() }, "temperature NaN"},
		{"temperature infinite", m, func(c *DistilConfig) { c.Temperature = math.Inf(1) }, "temperature +Inf"},
		{"no width", m, func(c *DistilConfig) { c.Hidden = 0 }, "hidden layer 1 of width 0"},
		{"no batch", m, func(c *DistilConfig) { c.Batch = 0 }, "batch of 0"},
		{"rate NaN", m, func(c *DistilConfig) { c.Rate = math.NaN() }, "learning rate NaN"},
		{"rate far too high", m, func(c *DistilConfig) { c.Rate = 1e35 }, "lower the learning rate"},
		{"teacher without sense", wild, func(c *DistilConfig) {}, "the teacher's answers are not finite"},
		{"temperature beyond a float", m, func(c *DistilConfig) { c.Temperature = 1e300 }, "the student's parameters are not finite"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := quick()
			c.change(&cfg)
			student, err := Distil(t.Context(), c.teacher, cfg)
			if err == nil || !strings.HasPrefix(err.Error(), "distil model m: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, error %v, want %q", student, err, c.want)
			}
		})
	}
}

// TestVariantsOnRealData: on the built-in data int8 is within .001 of its float model, and a student of half the width,
// distilled from schema and sums, within .01.
func TestVariantsOnRealData(t *testing.T) {
	schema, rows, _, err := data.Shoppers()
	if err != nil {
		t.Fatal(err)
	}
	parts := data.Split(schema, rows, 1)
	st, err := data.NewStatistics(schema, data.Collect(schema, parts.Train))
	if err != nil {
		t.Fatal(err)
	}
	float := random(t, st, []int{32}, .1)
	trainer, err := model.NewTrainer(float.Network, 32)
	if err != nil {
		t.Fatal(err)
	}
	x, y := st.Matrix(parts.Train)
	if _, err := trainer.Train(t.Context(), float.Params, x, y, model.TrainConfig{Epochs: 8, Rate: .1}); err != nil {
		t.Fatal(err)
	}
	auc := func(m *model.Model) float64 {
		x, y := st.Matrix(parts.Held)
		z := make([]float32, len(y))
		m.Predictor().Predict(x, z)
		return model.ExactAUC(z, y)
	}
	student := distilled(t, float, DistilConfig{Hidden: 16, Rows: 10_000, Epochs: 8, Batch: 32, Rate: .3, Temperature: 2, Seed: 1})
	reference := auc(float)
	t.Logf("AUC %.4f", reference)
	for _, c := range []struct {
		name   string
		from   *model.Model
		int8   bool
		within float64
	}{{"int8", float, true, .001}, {"student", student, false, .01}, {"student-int8", student, true, .01}} {
		m := c.from
		if c.int8 {
			if m, err = Int8(m); err != nil {
				t.Fatal(err)
			}
		}
		if got := auc(m); m.Variant != c.name || reference < .9 || math.Abs(got-reference) > c.within {
			t.Errorf("%s: AUC %.4f, float32 %.4f", m.Variant, got, reference)
		} else {
			t.Logf("%s: AUC %.4f", m.Variant, got)
		}
	}
}

package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/model/codec"
	choirv1 "choir.example/proto/choir/v1"
)

// bench is a workshop with the toy schema, and models to fetch.
type bench struct {
	*workshop
	t      testing.TB
	models map[string][]byte
}

func newBench(t testing.TB, name string, train, validation int) *bench {
	t.Helper()
	b := &bench{t: t, models: map[string][]byte{}}
	s := toyStore(t, t.TempDir(), train)
	if validation > 0 {
		importCSV(t, s, Validation, toyCSV(validation))
	}
	b.workshop = &workshop{store: s, name: name, fetch: func(_ context.Context, id []byte) ([]byte, error) {
		body, ok := b.models[string(id)]
		if !ok {
			return nil, fmt.Errorf("blob %x is nowhere", id)
		}
		return body, nil
	}}
	return b
}

// publish makes a model one that can be fetched.
func (b *bench) publish(m *model.Model) []byte {
	b.t.Helper()
	body, id := encoded(b.t, m)
	b.models[string(id[:])] = body
	return id[:]
}

// task invites to train from the toy model.
func (b *bench) task(change func(*choirv1.Task)) *choirv1.Task {
	t := &choirv1.Task{
		Key: &choirv1.RoundKey{Job: "job", Round: 1}, Kind: choirv1.RoundKind_ROUND_KIND_TRAIN, Job: toyJob(b.t), Seed: 42,
		Model: b.publish(toyModel(b.t, "toy", 1)),
	}
	if change != nil {
		change(t)
	}
	return t
}

// work is the workshop's, with a copy of the update.
func (b *bench) work(ctx context.Context, t *choirv1.Task) (copied *fedavg.Update, err error) {
	err = b.workshop.work(ctx, t, func(u *fedavg.Update) error {
		copied = u.Clone()
		return nil
	})
	return copied, err
}

func (b *bench) do(t *choirv1.Task) *fedavg.Update {
	b.t.Helper()
	u, err := b.work(b.t.Context(), t)
	if err != nil {
		b.t.Fatal(err)
	}
	return u
}

// bytesOf is the update as it would be signed.
func bytesOf(u *fedavg.Update) string { return string((&fedavg.Payload{Update: *u}).Encode()) }

// Two rows, worked out by hand. age lies in [0, 100], so 25 and 50 are 1/4 and 1/2 of the grid of 2^22: sum 3/4, squares
// 1/16 + 1/4 = 5/16; none at the minimum. size lies in [-1, 1]: -1 is 0 and at the minimum, the other is missing.
func TestStatisticsByHand(t *testing.T) {
	schema := parseSchema(t, `{"name":"hand","unit":"row","label":"y","columns":[
		{"name":"age","kind":"numeric","min":0,"max":100},{"name":"colour","kind":"category","categories":["red","green","blue"]},
		{"name":"y","kind":"boolean"},{"name":"size","kind":"numeric","min":-1,"max":1},{"name":"member","kind":"boolean"}]}`)
	s := openTestStore(t, t.TempDir())
	if err := s.SetSchema(schema); err != nil {
		t.Fatal(err)
	}
	importCSV(t, s, Train, "age,colour,size,member,y\n25,blue,-1,yes,true\n50,red,,no,false\n")
	importCSV(t, s, Validation, "age,colour,size,member,y\n99,green,1,yes,true\n") // counts for nothing
	w := &bench{workshop: &workshop{store: s, name: "node-01"}, t: t}
	job := toyJob(t)
	job.Schema = schema.Encode()
	task := &choirv1.Task{Kind: choirv1.RoundKind_ROUND_KIND_STATISTICS, Job: job}
	const one = 1 << 22
	for limit, want := range map[int64][]int64{
		100: {2, 0, one * 3 / 4, one * 5 / 16 /**/, 1, 0, 1 /**/, 1, 1, 0, 0 /**/, 2, 1 /**/, 2, 1},
		1:   {1, 0, one / 4, one / 16 /**/, 0, 0, 1 /**/, 1, 1, 0, 0 /**/, 1, 1 /**/, 1, 1},
	} {
		job.WeightCap = limit
		u, err := w.work(t.Context(), task)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(u.Scalars, want) || u.Weight != min(2, limit) || u.Vectors != nil || u.Evaluations != nil {
			t.Errorf("cap %d: %+v, want %v", limit, u, want)
		}
	}
}

// The seed, the round and the node's name decide an update to the last bit, whatever was done before.
func TestTrainingIsDeterministic(t *testing.T) {
	b := newBench(t, "node-01", 40, 10)
	first := bytesOf(b.do(b.task(nil)))
	if bytesOf(b.do(b.task(nil))) != first {
		t.Error("the same task again gives another update")
	}
	if fresh := newBench(t, "node-01", 40, 10); bytesOf(fresh.do(fresh.task(nil))) != first {
		t.Error("the same task and data elsewhere give another update")
	}
	other := newBench(t, "node-02", 40, 10)
	for name, u := range map[string]*fedavg.Update{
		"another seed":  b.do(b.task(func(t *choirv1.Task) { t.Seed++ })),
		"another round": b.do(b.task(func(t *choirv1.Task) { t.Key.Round++ })),
		"another node":  other.do(other.task(nil)),
		"another model": b.do(b.task(func(t *choirv1.Task) { t.Model = b.publish(toyModel(b.t, "toy", 2)) })),
		"other epochs":  b.do(b.task(func(t *choirv1.Task) { t.Job.LocalEpochs++ })),
	} {
		if bytesOf(u) == first {
			t.Errorf("%s gives the same update", name)
		}
	}
	if bytesOf(b.do(b.task(nil))) != first {
		t.Error("the same task after others gives another update")
	}
}

// The norm of the integers is within the clip, and close to it where the clip bites.
func TestUpdatesAreClipped(t *testing.T) {
	b := newBench(t, "node-01", 200, 0)
	norm := func(clip float64) float64 {
		u := b.do(b.task(func(t *choirv1.Task) { t.Job.Clip, t.Job.LocalEpochs = clip, 5 }))
		var squared float64
		for _, q := range u.Vectors[0] {
			squared += float64(q) * float64(q)
		}
		grid := codec.Grid{Range: 4}
		if clip > 0 && squared > float64(grid.ClipSquared(clip)) {
			t.Errorf("clip %v: squared norm %v of the integers exceeds %d", clip, squared, grid.ClipSquared(clip))
		}
		return math.Sqrt(squared) * grid.Step()
	}
	free := norm(0)
	for _, share := range []float64{2, 0.5, 0.01} {
		clip := share * free
		got := norm(clip)
		if want := min(clip, free); got > want*(1+1e-9) || got < want*0.999 {
			t.Errorf("free norm %v, clipped to %v: %v", free, clip, got)
		}
	}
	step := codec.Grid{Range: 4}.Step()
	if got := norm(step); got > step { // hardly anything is left
		t.Errorf("norm %v, want at most %v", got, step)
	}
}

func TestWeightIsCapped(t *testing.T) {
	b := newBench(t, "node-01", 40, 10)
	for limit, want := range map[int64]int64{1000: 40, 40: 40, 39: 39, 1: 1} {
		u := b.do(b.task(func(t *choirv1.Task) { t.Job.WeightCap = limit }))
		if u.Weight != want {
			t.Errorf("weight %d under a cap of %d", u.Weight, limit)
		}
		u = b.do(b.task(func(t *choirv1.Task) {
			t.Job.WeightCap, t.Kind, t.Candidates = limit, choirv1.RoundKind_ROUND_KIND_EVALUATE, [][]byte{t.Model}
		}))
		if u.Weight != min(10, limit) {
			t.Errorf("weight %d of an evaluation under a cap of %d", u.Weight, limit)
		}
	}
}

// What is measured is the model that was received, on the validation part.
func TestEvaluationIsOfTheReceivedModel(t *testing.T) {
	b := newBench(t, "node-01", 40, 25)
	rows, err := b.store.Rows(Validation)
	if err != nil {
		t.Fatal(err)
	}
	m, m2 := toyModel(t, "toy", 1), toyModel(t, "toy", 2)
	same := func(got model.Evaluation, m *model.Model) {
		t.Helper()
		if want := m.Evaluate(rows); fmt.Sprint(got) != fmt.Sprint(want) || got.Examples != 25 {
			t.Errorf("evaluation %+v, want %+v", got, want)
		}
	}
	u := b.do(b.task(nil))
	same(u.Evaluations[0], m)
	u = b.do(b.task(func(t *choirv1.Task) {
		t.Kind, t.Candidates = choirv1.RoundKind_ROUND_KIND_EVALUATE, [][]byte{b.publish(m2), b.publish(m), b.publish(quantised(b.t))}
	}))
	if len(u.Evaluations) != 3 || u.Vectors != nil || u.Scalars != nil {
		t.Fatalf("%d evaluations", len(u.Evaluations))
	}
	same(u.Evaluations[0], m2)
	same(u.Evaluations[1], m)
	same(u.Evaluations[2], quantised(t))
}

// quantised is an int8 model of the toy schema.
func quantised(t testing.TB) *model.Model {
	m := toyModel(t, "toy", 1)
	m.Params, m.Variant = nil, "int8"
	for _, d := range [][2]int{{6, 4}, {4, 1}} {
		w := model.Int8Tensor{Weights: make([]int8, d[0]*d[1]), Scales: make([]float32, d[1])}
		for i := range w.Weights {
			w.Weights[i] = int8(i*37%101 - 50)
		}
		for i := range w.Scales {
			w.Scales[i] = 0.01
		}
		m.Quantised = append(m.Quantised, w, model.Int8Tensor{Floats: make([]float32, d[1])})
	}
	return m
}

// A node without validation rows, or with one class only, trains like any other.
func TestUnevenNodesTakePart(t *testing.T) {
	b := newBench(t, "node-01", 30, 0)
	u := b.do(b.task(nil))
	if e := u.Evaluations[0]; e.Examples != 0 || e.Positives != nil || u.Weight != 30 {
		t.Errorf("evaluation %+v, weight %d", e, u.Weight)
	}
	u = b.do(b.task(func(t *choirv1.Task) { t.Kind, t.Candidates = choirv1.RoundKind_ROUND_KIND_EVALUATE, [][]byte{t.Model} }))
	if u.Weight != 1 || u.Evaluations[0].Examples != 0 {
		t.Errorf("an evaluation of nothing: %+v", u)
	}
	b = newBench(t, "node-01", 0, 0)
	importCSV(t, b.store, Train, toyHeader+strings.Repeat("30,100,red,1,1\n", 20))
	importCSV(t, b.store, Validation, toyHeader+strings.Repeat("30,100,red,1,1\n", 5))
	u = b.do(b.task(nil))
	if e := u.Evaluations[0]; e.Examples != 5 || !slices.Equal(e.Negatives, make([]int64, model.Bins)) || slices.Max(u.Vectors[0]) == 0 {
		t.Errorf("one class: %+v", u)
	}
}

// Rows that were imported between two rounds count in the second.
func TestImportedRowsCountInTheNextRound(t *testing.T) {
	b := newBench(t, "node-01", 10, 4)
	before := b.do(b.task(nil))
	importCSV(t, b.store, Train, toyCSV(7))
	importCSV(t, b.store, Validation, toyCSV(2))
	after := b.do(b.task(nil))
	if before.Weight != 10 || after.Weight != 17 || after.Evaluations[0].Examples != 6 {
		t.Errorf("weights %d and %d, %d examples", before.Weight, after.Weight, after.Evaluations[0].Examples)
	}
}

// A training that runs away is an error and leaves nothing behind; the next one is as good as ever.
func TestRunawayTrainingIsAnError(t *testing.T) {
	b := newBench(t, "node-01", 40, 10)
	want := bytesOf(b.do(b.task(nil)))
	for _, rate := range []float64{1e30, 1e38, math.MaxFloat64} {
		_, err := b.work(t.Context(), b.task(func(t *choirv1.Task) { t.Job.LearningRate, t.Job.LocalEpochs = rate, 20 }))
		wantError(t, err, "lower the learning rate")
	}
	for _, rate := range []float64{10, 1e3, 1e6} { // may saturate the grid, and stays within the clip
		u, err := b.work(t.Context(), b.task(func(t *choirv1.Task) { t.Job.LearningRate, t.Job.LocalEpochs = rate, 20 }))
		if err != nil {
			wantError(t, err, "lower the learning rate")
			continue
		}
		shape := fedavg.Shape{Vectors: []int{b.trainerSize()}, Evaluations: 1, WeightCap: 100, ClipSquared: codec.Grid{Range: 4}.ClipSquared(1)}
		if err := u.Check(shape); err != nil {
			t.Errorf("rate %v: %v", rate, err)
		}
	}
	if bytesOf(b.do(b.task(nil))) != want {
		t.Error("what ran away left something behind")
	}
}

func (b *bench) trainerSize() int { return toyModel(b.t, "toy", 1).Network.Size() }

// A task that no honest coordinator sends is refused in words, never in a panic.
func TestBadTasksAreRefused(t *testing.T) {
	b := newBench(t, "node-01", 10, 4)
	otherSchema := toySchema(t)
	otherSchema.Columns[0].Max = 99
	foreign := modelOf(t, otherSchema, "toy", 1)
	for name, c := range map[string]struct {
		change func(*choirv1.Task)
		say    string
	}{
		"no job":              {func(t *choirv1.Task) { t.Job = nil }, "no job"},
		"empty job":           {func(t *choirv1.Task) { t.Job = &choirv1.JobSpec{} }, "weight_cap is 0"},
		"negative cap":        {func(t *choirv1.Task) { t.Job.WeightCap = -5 }, "job job: weight_cap is -5, want 1 to"},
		"huge cap":            {func(t *choirv1.Task) { t.Job.WeightCap = 1 << 40 }, "weight_cap is"},
		"no range":            {func(t *choirv1.Task) { t.Job.Range = 0 }, "range is 0"},
		"range NaN":           {func(t *choirv1.Task) { t.Job.Range = math.NaN() }, "range is NaN"},
		"range infinite":      {func(t *choirv1.Task) { t.Job.Range = math.Inf(1) }, "range is +Inf"},
		"clip NaN":            {func(t *choirv1.Task) { t.Job.Clip = math.NaN() }, "clip is NaN"},
		"clip negative":       {func(t *choirv1.Task) { t.Job.Clip = -1 }, "clip is -1"},
		"epochs without end":  {func(t *choirv1.Task) { t.Job.LocalEpochs = 1 << 31 }, "job job: local: epochs is 2147483648, want at most 1000"},
		"no batch":            {func(t *choirv1.Task) { t.Job.Batch = 0 }, "batch of 0"},
		"huge batch":          {func(t *choirv1.Task) { t.Job.Batch = 1 << 31 }, "batch of"},
		"rate NaN":            {func(t *choirv1.Task) { t.Job.LearningRate = math.NaN() }, "learning_rate is NaN"},
		"rate negative":       {func(t *choirv1.Task) { t.Job.LearningRate = -1 }, "learning_rate is -1"},
		"no schema":           {func(t *choirv1.Task) { t.Job.Schema = nil }, "neither a schema nor examples"},
		"another schema":      {func(t *choirv1.Task) { t.Job.Schema = otherSchema.Encode() }, "schema toy, which this node's data do not have"},
		"unknown kind":        {func(t *choirv1.Task) { t.Kind = 77 }, "kind 77 is not known"},
		"no kind":             {func(t *choirv1.Task) { t.Kind = 0 }, "is not known"},
		"no model":            {func(t *choirv1.Task) { t.Model = nil }, "is nowhere"},
		"model of no one":     {func(t *choirv1.Task) { t.Model = make([]byte, 32) }, "is nowhere"},
		"model that is none":  {func(t *choirv1.Task) { b.models["x"] = []byte("x"); t.Model = []byte("x") }, "model 78: "},
		"model of other data": {func(t *choirv1.Task) { t.Model = b.publish(foreign) }, "is for schema toy, which this node's data do not have"},
		"model in int8":       {func(t *choirv1.Task) { t.Model = b.publish(quantised(b.t)) }, "no float parameters"},
		"no candidates":       {func(t *choirv1.Task) { t.Kind = choirv1.RoundKind_ROUND_KIND_EVALUATE }, "0 candidates to evaluate"},
		"many candidates": {func(t *choirv1.Task) {
			t.Kind, t.Candidates = choirv1.RoundKind_ROUND_KIND_EVALUATE, slices.Repeat([][]byte{t.Model}, 17)
		}, "17 candidates to evaluate, want 1 to 16"},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := b.work(t.Context(), b.task(c.change))
			if wantError(t, err, c.say); u != nil {
				t.Errorf("an update beside the error: %v", u)
			}
		})
	}
}

func TestNodeWithoutExamples(t *testing.T) {
	b := newBench(t, "node-01", 0, 5)
	_, err := b.work(t.Context(), b.task(nil))
	wantError(t, err, "no training examples; import some")
	_, err = b.work(t.Context(), b.task(func(t *choirv1.Task) { t.Kind = choirv1.RoundKind_ROUND_KIND_STATISTICS }))
	wantError(t, err, "no training examples; import some")
	u := b.do(b.task(func(t *choirv1.Task) { t.Kind, t.Candidates = choirv1.RoundKind_ROUND_KIND_EVALUATE, [][]byte{t.Model} }))
	if u.Evaluations[0].Examples != 5 {
		t.Errorf("it can still evaluate: %+v", u)
	}
	w := &bench{workshop: &workshop{store: openTestStore(t, t.TempDir())}, t: t}
	_, err = w.work(t.Context(), b.task(nil))
	wantError(t, err, "is for schema toy, and this node has no data")
}

// What a payload says of itself follows from the node's own certificate and a task that agrees with it.
func TestHeaderOfATask(t *testing.T) {
	p := newParty(t, "test")
	id := p.identity("node-01", "c1")
	cred := p.certify("coordinator", "c1")
	good := func() *choirv1.Task { return p.statisticsTask(cred, "c1") }
	for name, c := range map[string]struct {
		change func(*choirv1.Task)
		say    string
	}{
		"another cluster": {func(t *choirv1.Task) { t.Cluster = "other" }, `of cluster "other", not "test"`},
		"no cluster":      {func(t *choirv1.Task) { t.Cluster = "" }, `of cluster "", not "test"`},
		"no key":          {func(t *choirv1.Task) { t.Key = nil }, "names no job, or two"},
		"no job":          {func(t *choirv1.Task) { t.Job = nil }, "names no job, or two"},
		"two jobs":        {func(t *choirv1.Task) { t.Job.Name = "jab" }, "names no job, or two"},
		"no plan":         {func(t *choirv1.Task) { t.Plan = nil }, "plan digest of 0 bytes"},
		"long plan":       {func(t *choirv1.Task) { t.Plan = make([]byte, 33) }, "plan digest of 33 bytes"},
		"short model":     {func(t *choirv1.Task) { t.Model = make([]byte, 3) }, "model id of 3 bytes"},
	} {
		task := good()
		c.change(task)
		_, err := headerOf(task, id)
		if wantError(t, err, c.say); t.Failed() {
			t.Log(name)
		}
	}
	task := good()
	task.Plan[0], task.Model = 1, append([]byte{2}, make([]byte, 31)...)
	h, err := headerOf(task, id)
	want := header("node-01")
	want.Plan[0], want.Model[0] = 1, 2
	if err != nil || h != want {
		t.Errorf("%+v, %v", h, err)
	}
}

// A node that is stopped while it trains stops before its next step, and sends nothing.
func TestStoppingEndsTraining(t *testing.T) {
	b := newBench(t, "node-01", 100, 4)
	ctx, cancel := context.WithCancel(t.Context())
	steps := 0
	b.pause = func() {
		if steps++; steps == 3 {
			cancel()
		}
	}
	u, err := b.work(ctx, b.task(func(t *choirv1.Task) { t.Job.LocalEpochs = 1000 }))
	if u != nil || !errors.Is(err, context.Canceled) || steps != 3 {
		t.Errorf("update %v, error %v after %d steps", u, err, steps)
	}
}

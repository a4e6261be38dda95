package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// onnxRun is a model for onnxruntime, as testdata/onnxruntime/run.js takes it.
type onnxRun struct {
	File   string              `json:"file"`
	Feeds  map[string]onnxFeed `json:"feeds"`
	Repeat int                 `json:"repeat,omitempty"`
}

type onnxFeed struct {
	Type string `json:"type"`
	Dims []int  `json:"dims"`
	Data []any  `json:"data"`
}

// onnxRan is what comes back.
type onnxRan struct {
	Error   string
	Outputs map[string]struct {
		Dims []int
		Data []float64
	}
	Micros float64
}

// floatFeed is an input of float32s, ids one of int64s. JSON has no NaN: null stands for it.
func floatFeed(x []float32, dims ...int) onnxFeed {
	f := onnxFeed{"float32", dims, nil}
	for _, v := range x {
		if v != v {
			f.Data = append(f.Data, nil)
		} else {
			f.Data = append(f.Data, v)
		}
	}
	return f
}

func idFeed(x []float32, dims ...int) onnxFeed {
	f := floatFeed(x, dims...)
	f.Type = "int64"
	return f
}

// newRun writes a model's file for onnxruntime.
func newRun(t testing.TB, file []byte, err error, feeds map[string]onnxFeed) onnxRun {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp(t.TempDir(), "*.onnx")
	if err == nil {
		_, err = f.Write(file)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return onnxRun{File: f.Name(), Feeds: feeds}
}

// runONNX runs the models in one process.
func runONNX(t testing.TB, runs []onnxRun) []onnxRan {
	t.Helper()
	dir := onnxruntime(t)
	in, err := json.Marshal(runs)
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join("testdata", "onnxruntime", "run.js"), dir)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("onnxruntime: %v\n%s", err, stderr.String())
	}
	var ran []onnxRan
	if err := json.Unmarshal(out, &ran); err != nil {
		t.Fatal(err)
	}
	return ran
}

// onnxruntime is a directory with node_modules/onnxruntime-node: the one that CHOIR_ONNXRUNTIME names, or one in the
// user's cache, where npm installs it once; its install scripts do not run.
func onnxruntime(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("onnxruntime is left out of short tests")
	}
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("exported models are not run: onnxruntime comes by npm, and there is no %s here", program)
		}
	}
	dir, err := installONNX()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var installONNX = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("CHOIR_ONNXRUNTIME"); dir != "" {
		return dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "choir", "onnxruntime-node-1.30.0")
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "installing")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	for _, name := range []string{"package.json", "package-lock.json"} {
		b, err := os.ReadFile(filepath.Join("testdata", "onnxruntime", name))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(fresh, name), b, 0o600); err != nil {
			return "", err
		}
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = fresh
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("install onnxruntime-node: %w\n%s", err, out)
	}
	if err := os.Rename(fresh, dir); err != nil {
		if _, other := os.Stat(dir); other != nil { // or another test was faster
			return "", err
		}
	}
	return dir, nil
})

// distance is the largest difference of two outputs over the largest value that is wanted.
func distance(got []float64, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	top, off := math.SmallestNonzeroFloat64, 0.0
	for i, w := range want {
		top = max(top, math.Abs(float64(w)))
		off = max(off, math.Abs(got[i]-float64(w)))
	}
	return off / top
}

// BenchmarkOnnxruntime is BenchmarkPredict with the exported models in onnxruntime, through its binding for node, on one
// thread.
func BenchmarkOnnxruntime(b *testing.B) {
	for _, c := range predictCases() {
		b.Run(c.name, func(b *testing.B) {
			network := compile(b, c.spec)
			dims := append([]int{1}, network.spec.Input...)
			feed := floatFeed(c.x, dims...)
			if network.readsIDs() {
				feed = idFeed(c.x, dims...)
			}
			file, err := network.ONNX(network.Initial(1))
			run := newRun(b, file, err, map[string]onnxFeed{"input": feed})
			run.Repeat = max(b.N, 200)
			ran := runONNX(b, []onnxRun{run})[0]
			if ran.Error != "" {
				b.Fatal(ran.Error)
			}
			b.ReportMetric(ran.Micros*1000, "ns/op")
		})
	}
}

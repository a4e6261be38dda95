package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"choir.example/model"
)

// central trains in one place and returns the figures of the test part.
func central(t *testing.T, args ...string) map[string]float64 {
	t.Helper()
	return centralParts(t, args...).Test
}

// parts are figures by name.
type parts struct{ Validation, Test map[string]float64 }

func centralParts(t *testing.T, args ...string) (done parts) {
	t.Helper()
	out, errs, code := choir(t, append([]string{"train", "-o", "json"}, args...)...)
	if code != exitOK {
		t.Fatalf("choir train %v: exit code %d: %s", args, code, errs)
	}
	if err := json.Unmarshal([]byte(out), &done); err != nil {
		t.Fatal(err)
	}
	return done
}

// What central training reaches on the built-in data, by the area under the curve of the test part.
func TestCentralShoppers(t *testing.T) {
	for name, floor := range map[string]float64{"logistic": .912, "mlp": .925, "svm": .90} {
		rate := map[string]string{"logistic": "0.05", "mlp": "0.05", "svm": "0.01"}[name]
		for seed := 1; seed <= 3; seed++ {
			got := central(t, "--data", "shoppers", "--model", name, "--epochs", "20", "--rate", rate, "--seed", strconv.Itoa(seed))
			if got["auc"] < floor {
				t.Errorf("%s, seed %d: AUC %v, want at least %v", name, seed, got["auc"], floor)
			}
		}
	}
}

// publicData is the directory of a public data set, for who has it.
func publicData(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("CHOIR_DATA")
	if dir == "" {
		t.Skip("CHOIR_DATA names no directory with data sets")
	}
	return filepath.Join(dir, name)
}

// Images: what is asked of mlp, and what one epoch of a network of convolutions reaches.
func TestCentralImages(t *testing.T) {
	dir := publicData(t, "fashion-mnist")
	for _, c := range []struct {
		model string
		flags []string
		floor float64
	}{
		{"mlp", []string{"--epochs", "12"}, .88},
		{"mobile", []string{"--epochs", "1", "--optimiser", "adam", "--rate", "0.005"}, .85},
	} {
		got := central(t, append(c.flags, "--data", "fashion-mnist", "--from", dir, "--model", c.model, "--schedule", "cosine")...)
		if got["accuracy"] < c.floor {
			t.Errorf("%s: accuracy %v, want at least %v", c.model, got["accuracy"], c.floor)
		}
	}
}

// Texts: what a training of seconds reaches, which is all of it.
func TestCentralTexts(t *testing.T) {
	got := central(t, "--data", "banking77", "--from", publicData(t, "banking77"), "--model", "text", "--epochs", "10",
		"--optimiser", "adam", "--rate", "0.01", "--schedule", "cosine")
	if got["accuracy"] < .89 {
		t.Errorf("accuracy %v", got["accuracy"])
	}
}

// Characters: what two epochs of a small recurrent network reach, in nats a character; a guess by frequency has 3.3.
func TestCentralCharacters(t *testing.T) {
	dir := publicData(t, "tinyshakespeare")
	spec := filepath.Join(t.TempDir(), "small.yaml")
	text := `input: [64]
layers:
  - {kind: embedding, rows: [65], dim: 16}
  - {kind: lstm, units: 128, sequence: true}
  - {kind: dense, units: 65}
loss: softmax
`
	if err := os.WriteFile(spec, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := centralParts(t, "--data", "tinyshakespeare", "--from", dir, "--model", spec, "--epochs", "2",
		"--optimiser", "adam", "--rate", "0.01", "--schedule", "cosine", "--clip", "1").Validation
	if loss, ok := got["log_loss"]; !ok || loss > 1.85 {
		t.Errorf("log loss %v", loss)
	}
}

// Ctrl-C ends a training before its next step, and leaves no file.
func TestInterruptedTraining(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := &trainCommand{Data: "shoppers", Model: "logistic", Epochs: 1, Batch: 32, Rate: .1, Out: filepath.Join(t.TempDir(), "m.safetensors")}
	err := c.Run(ctx, &terminal{out: io.Discard, err: io.Discard})
	if err == nil || err.Error() != "interrupted; nothing was written" {
		t.Error(err)
	}
	if _, err := os.Stat(c.Out); !errors.Is(err, fs.ErrNotExist) {
		t.Error("there is a file")
	}
}

// After an epoch, and not more often than every two seconds, people are told how the validation part is answered.
func TestTrainingTellsOfEpochs(t *testing.T) {
	c := &trainCommand{Data: "shoppers", Model: "logistic"}
	set, err := c.load()
	if err != nil {
		t.Fatal(err)
	}
	network, err := c.network(set)
	if err != nil {
		t.Fatal(err)
	}
	var talk strings.Builder
	f := &follower{set: set, talk: &talk, predictor: model.NewPredictor(network, network.Initial(1)), epoch: 5, epochs: 3, start: time.Now().Add(-time.Minute)}
	for range 12 {
		f.step()
	}
	if got := talk.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "epoch 1 of 3, 60 s: validation accuracy 0.") {
		t.Errorf("told %q", got)
	}
}

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// central trains in one place and returns the figures of the test part.
func central(t *testing.T, args ...string) map[string]float64 {
	t.Helper()
	out, errs, code := choir(t, append([]string{"train", "-o", "json"}, args...)...)
	if code != exitOK {
		t.Fatalf("choir train %v: exit code %d: %s", args, code, errs)
	}
	var done struct{ Test map[string]float64 }
	if err := json.Unmarshal([]byte(out), &done); err != nil {
		t.Fatal(err)
	}
	return done.Test
}

// What central training reaches on the built-in data, by the area under the curve of the test part.
func TestCentralShoppers(t *testing.T) {
	for model, floor := range map[string]float64{"logistic": .912, "mlp": .925, "svm": .885} {
		rate := map[string]string{"logistic": "0.05", "mlp": "0.05", "svm": "0.01"}[model]
		for seed := 1; seed <= 2; seed++ {
			got := central(t, "--data", "shoppers", "--model", model, "--epochs", "20", "--rate", rate, "--seed", strconv.Itoa(seed))
			if got["auc"] < floor {
				t.Errorf("%s, seed %d: AUC %v, want at least %v", model, seed, got["auc"], floor)
			}
		}
	}
}

// Images, for who has them: what a few epochs reach.
func TestCentralImages(t *testing.T) {
	dir := os.Getenv("CHOIR_DATA")
	if dir == "" {
		t.Skip("CHOIR_DATA names no directory with data sets")
	}
	got := central(t, "--data", "fashion-mnist", "--from", filepath.Join(dir, "fashion-mnist"), "--model", "mlp", "--epochs", "4", "--rate", "0.05")
	if got["accuracy"] < .85 {
		t.Errorf("accuracy %v", got["accuracy"])
	}
}

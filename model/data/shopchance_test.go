package data

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// Even who knows the formula cannot tell all purchases: its own probabilities reach an area under the curve of about
// 0.88, so no model can do better, but by luck.
func TestShopIsNotSeparable(t *testing.T) {
	shop, err := GenerateShop(2, 500, 200, 1)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(9, 9))
	type visit struct {
		chance   float64
		purchase bool
	}
	visits := make([]visit, 20_000)
	for i := range visits {
		chance := shop.chance(shop.draw(rng))
		visits[i] = visit{chance, rng.Float64() < chance}
	}
	slices.SortFunc(visits, func(a, b visit) int { return cmp.Compare(a.chance, b.chance) })
	var ranks, positives float64
	for i, v := range visits {
		if v.purchase {
			ranks, positives = ranks+float64(i+1), positives+1
		}
	}
	auc := (ranks - positives*(positives+1)/2) / (positives * (float64(len(visits)) - positives))
	t.Logf("area under the curve %.4f, %.3f of the sessions end in a purchase", auc, positives/float64(len(visits)))
	if auc < 0.86 || auc > 0.9 {
		t.Errorf("the formula's own probabilities reach %.4f, want 0.86 to 0.9", auc)
	}
}

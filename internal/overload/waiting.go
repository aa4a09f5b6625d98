package overload

// Waiting is a bound on how many requests wait at once, parted so that one tenant's leave those of others room: each has half of it
// at most, and a quarter is kept for tenants of whom no more than a hundredth wait. It is safe for concurrent use; without Set
// nothing is to be had of it.
type Waiting struct{ Shares }

// Set says how many. It is called before the first Take.
func (w *Waiting) Set(all int64) {
	w.Shares.Set(all, max(1, all/2))
	w.Keep(all/4, max(1, all/100))
}

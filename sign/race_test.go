//go:build race

package sign_test

// The race detector makes pools forget some of what is put into them.
const allowedAllocations = 20

/* ---- buffers that count their own traffic ---------------------------------------------------------------------- */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef ELEM
#define ELEM double
#endif
#ifdef COUNT
#define COUNTING 1
#else
#define COUNTING 0
#endif
typedef ELEM elem;

typedef struct Buffer {
    const char *level, *tensor;
    struct Buffer *root; /* the whole tensor: gives every word its number */
    int rank;
    long extent[RANK], copies, slots; /* index i of an axis sits in slot i mod extent */
    elem *data;
    char *has;             /* outputs: a partial sum is here */
    long *touched;         /* last transfer that moved this slot */
    char *fresh;           /* this transfer is the first that brings a sum here */
    long *tag, *when, *now; /* inputs: which word, brought by which load; loads so far */
    long reads, writes, largest, expected_reads, expected_writes;
} Buffer;

typedef struct {
    Buffer *parent;
    long groups; /* lanes that cannot share a word move it separately */
    long *stamp;
} Port;

typedef struct {
    long *index[RANK], length[RANK]; /* distinct indices per axis */
} Tile;

static long epoch = 0; /* number of the transfer or MAC step that runs */
static long mac_steps = 0, macs = 0;

static void *room(long count, size_t size)
{
    char *memory = calloc((count > 0 ? (size_t)count : 1) + 64 / size + 1, size);
    if (!memory) { fprintf(stderr, "out of memory\n"); exit(2); }
    return memory + (64 - (uintptr_t)memory % 64) % 64; /* at the start of a cache line; never given back */
}

static void open_buffer(Buffer *b)
{
    b->slots = 1;
    for (int a = 0; a < b->rank; a++) b->slots *= b->extent[a];
    long all = b->slots * b->copies;
    b->data = room(all, sizeof(elem));
    b->has = room(all, 1);
    b->fresh = room(all, 1);
    b->touched = room(all, sizeof(long));
    b->tag = room(all, sizeof(long));
    b->when = room(all, sizeof(long));
    b->now = room(b->copies, sizeof(long));
}

static void open_port(Port *p)
{
    if (COUNTING) p->stamp = room(p->groups * p->parent->copies * p->parent->slots, sizeof(long));
}

static long slot(const Buffer *b, long copy, const long *index)
{
    long at = copy;
    for (int a = 0; a < b->rank; a++) at = at * b->extent[a] + index[a] % b->extent[a];
    return at;
}

/* Whether this is the first time in this transfer that the port moves the word for this group of lanes. */
static int first_time(Port *p, long group, long at)
{
    if (!COUNTING) return 0;
    long *mark = &p->stamp[group * p->parent->copies * p->parent->slots + at];
    if (*mark == epoch) return 0;
    *mark = epoch;
    return 1;
}

/* Whether v is c[0]*i[0] + c[1]*i[1] + ... for some i[t] in lo[t] .. hi[t]-1. */
static int touches(long v, int terms, const long *c, const long *lo, const long *hi)
{
    if (terms == 0) return v == 0;
    for (long i = lo[0]; i < hi[0]; i++)
        if (touches(v - c[0] * i, terms - 1, c + 1, lo + 1, hi + 1)) return 1;
    return 0;
}

/* The distinct indices of one axis of a tile. */
static void axis(Tile *tile, int a, int terms, const long *c, const long *lo, const long *hi)
{
    long low = 0, high = 0, n = 0;
    for (int t = 0; t < terms; t++) { low += c[t] * lo[t]; high += c[t] * (hi[t] - 1); }
    tile->index[a] = realloc(tile->index[a], (size_t)(high - low + 1) * sizeof(long));
    if (!tile->index[a]) { fprintf(stderr, "out of memory\n"); exit(2); }
    for (long v = low; v <= high; v++)
        if (touches(v, terms, c, lo, hi)) tile->index[a][n++] = v;
    tile->length[a] = n;
}

/* Walk the elements of a tile: index[] is set to each in turn. Returns 0 after the last. */
static int next_element(const Tile *tile, int rank, long *at, long *index, int *started)
{
    if (!*started) {
        *started = 1;
        for (int a = 0; a < rank; a++) at[a] = 0;
    } else {
        int a = rank - 1;
        while (a >= 0 && ++at[a] == tile->length[a]) at[a--] = 0;
        if (a < 0) return 0;
    }
    for (int a = 0; a < rank; a++) index[a] = tile->index[a][at[a]];
    return 1;
}

static long size_of(const Tile *tile, int rank)
{
    long total = 1;
    for (int a = 0; a < rank; a++) total *= tile->length[a];
    return total;
}

/* An input's tile comes in; with `slide`, words of the previous tile stay. */
static void load(Port *p, Buffer *b, long copy, long up, long group, const Tile *tile, int slide)
{
    long at[RANK], index[RANK];
    int started = 0;
    while (next_element(tile, b->rank, at, index, &started)) {
        long here = slot(b, copy, index), there = slot(p->parent, up, index), word = slot(b->root, 0, index);
        int stays = slide && b->when[here] == b->now[copy] && b->tag[here] == word;
        b->data[here] = p->parent->data[there];
        b->tag[here] = word;
        b->when[here] = b->now[copy] + 1;
        if (stays) continue;
        b->writes++;
        if (first_time(p, group, there)) p->parent->reads++;
    }
    b->now[copy]++;
    if (size_of(tile, b->rank) > b->largest) b->largest = size_of(tile, b->rank);
}

/* Partial sums that exist above come back: one copy takes them, the others start from zero. */
static void load_sums(Port *p, Buffer *b, long copy, long up, long group, const Tile *tile)
{
    long at[RANK], index[RANK];
    int started = 0;
    while (next_element(tile, b->rank, at, index, &started)) {
        long here = slot(b, copy, index), there = slot(p->parent, up, index);
        b->has[here] = p->parent->has[there];
        b->data[here] = 0;
        if (!b->has[here]) continue;
        if (p->parent->touched[there] != epoch) b->data[here] = p->parent->data[there];
        p->parent->touched[there] = epoch;
        b->writes++;
        if (first_time(p, group, there)) p->parent->reads++;
    }
    if (size_of(tile, b->rank) > b->largest) b->largest = size_of(tile, b->rank);
}

/* Partial sums go up; copies of one element add on the way, or by read and write where nothing reduces. */
static void drain(Port *p, Buffer *b, long copy, long up, long group, const Tile *tile)
{
    long at[RANK], index[RANK];
    int started = 0;
    Buffer *above = p->parent;
    while (next_element(tile, b->rank, at, index, &started)) {
        long here = slot(b, copy, index), there = slot(above, up, index);
        int again = above->touched[there] == epoch;
        if (!again) {
            above->touched[there] = epoch;
            above->fresh[there] = !above->has[there];
            above->data[there] = 0;
            above->has[there] = 1;
        }
        above->data[there] += b->data[here];
        b->reads++;
        if (first_time(p, group, there)) {
            above->writes++;
            if (again && above->fresh[there]) above->reads++;
        }
    }
}

static elem fetch(Port *p, long copy, long group, const long *index)
{
    long at = slot(p->parent, copy, index);
    if (first_time(p, group, at)) p->parent->reads++;
    return p->parent->data[at];
}

static void add(Port *p, long copy, long group, const long *index, elem value)
{
    Buffer *b = p->parent;
    long at = slot(b, copy, index);
    if (!b->has[at]) { /* the first sum of an element is not read */
        b->has[at] = 1;
        b->data[at] = 0;
        b->reads--;
    }
    if (first_time(p, group, at)) {
        b->reads++;
        b->writes++;
    }
    b->data[at] += value;
}

static void fill(Buffer *b, unsigned seed)
{
    for (long i = 0; i < b->slots; i++) { /* small whole numbers: every sum is exact */
        seed = seed * 1103515245u + 12345u;
        b->data[i] = (elem)((int)((seed >> 16) % 9u) - 4);
    }
}

/* Take one block of a dim: [lo, hi) becomes step `step` of size `tile`. */
#define STEP(lo, hi, step, tile) \
    do { lo += (step) * (tile); if (hi > lo + (tile)) hi = lo + (tile); } while (0)
#define MIN(a, b) ((a) < (b) ? (a) : (b))
/* ---- the mapping ------------------------------------------------------------------------------------------------- */

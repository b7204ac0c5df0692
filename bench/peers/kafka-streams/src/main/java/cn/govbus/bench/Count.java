package cn.govbus.bench;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** Decodes a framed Avro value and adds one to its cell. */
final class Count extends ContextualProcessor<byte[], byte[], Void, Void> {
  static final int FRAME = 5;
  static final long DAY_MS = 86_400_000L;
  static final long SHANGHAI_MS = 8 * 3_600_000L;

  private final GenericDatumReader<GenericRecord> reader;
  private final int[] places;
  private final int occurred;
  private final AtomicLong counted;
  private final long count;
  private KeyValueStore<String, Long> cells;
  private BinaryDecoder decoder;
  private GenericRecord record;
  private boolean asked;

  Count(Schema schema, String[] fields, AtomicLong counted, long count) {
    this.reader = new GenericDatumReader<>(schema);
    this.places = new int[fields.length];
    for (int i = 0; i < fields.length; i++) {
      places[i] = schema.getField(fields[i]).pos();
    }
    this.occurred = schema.getField("occurred_at").pos();
    this.counted = counted;
    this.count = count;
  }

  @Override
  public void init(ProcessorContext<Void, Void> context) {
    super.init(context);
    cells = context.getStateStore(Peer.STORE);
    context.schedule(Duration.ofMillis(50), PunctuationType.WALL_CLOCK_TIME, now -> commitAtTheEnd());
  }

  @Override
  public void process(Record<byte[], byte[]> carried) {
    String cell = cell(carried.value());
    Long before = cells.get(cell);
    cells.put(cell, before == null ? 1L : before + 1);
    counted.incrementAndGet();
  }

  /** The peer is measured until its last record is durable; its own commit interval would only add idle time. */
  private void commitAtTheEnd() {
    if (!asked && counted.get() >= count) {
      asked = true;
      context().commit();
    }
  }

  private String cell(byte[] value) {
    try {
      decoder = DecoderFactory.get().binaryDecoder(value, FRAME, value.length - FRAME, decoder);
      record = reader.read(record, decoder);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
    StringBuilder cell = new StringBuilder(96);
    for (int place : places) {
      cell.append(record.get(place)).append('\t');
    }
    return cell.append(Math.floorDiv((Long) record.get(occurred) + SHANGHAI_MS, DAY_MS)).toString();
  }
}

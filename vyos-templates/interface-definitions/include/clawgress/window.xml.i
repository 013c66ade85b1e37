<!-- Days, start and end of a time window: inside a node or a tag node. -->
<leafNode name="day">
  <properties>
    <help>Day on which the window opens; without one: every day</help>
    <completionHelp>
      <list>mon tue wed thu fri sat sun</list>
    </completionHelp>
    <constraint>
      <regex>(mon|tue|wed|thu|fri|sat|sun)</regex>
    </constraint>
    <constraintErrorMessage>day must be one of mon, tue, wed, thu, fri, sat, sun</constraintErrorMessage>
    <multi/>
  </properties>
</leafNode>
<leafNode name="start">
  <properties>
    <help>Time of day at which the window opens</help>
    <valueHelp>
      <format>HH:MM</format>
      <description>Hour and minute, from 00:00 to 23:59</description>
    </valueHelp>
    <valueHelp>
      <format>HH:MM:SS</format>
      <description>The same to the second</description>
    </valueHelp>
    <constraint>
      <regex>([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?</regex>
    </constraint>
    <constraintErrorMessage>start must be HH:MM or HH:MM:SS, from 00:00 to 23:59:59</constraintErrorMessage>
  </properties>
</leafNode>
<leafNode name="end">
  <properties>
    <help>Time of day at which the window closes; before start: on the next day</help>
    <valueHelp>
      <format>HH:MM</format>
      <description>Hour and minute, from 00:00 to 23:59</description>
    </valueHelp>
    <valueHelp>
      <format>HH:MM:SS</format>
      <description>The same to the second</description>
    </valueHelp>
    <constraint>
      <regex>([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?</regex>
    </constraint>
    <constraintErrorMessage>end must be HH:MM or HH:MM:SS, from 00:00 to 23:59:59</constraintErrorMessage>
  </properties>
</leafNode>
